//! The JSON of the drill is an interface: a field may be added here, never renamed or removed.

use std::collections::BTreeMap;

use tests::report::{
    Connections, Moment, NewConnections, Packets, PoolChange, Probes, Report, ScenarioReport,
    Verdict,
};

#[test]
fn the_report_has_the_names_that_others_read() -> Result<(), serde_json::Error> {
    insta::assert_snapshot!(serde_json::to_string_pretty(&example())?);
    Ok(())
}

#[test]
fn a_report_can_be_read_back() -> Result<(), serde_json::Error> {
    let text = serde_json::to_string(&example())?;
    assert_eq!(serde_json::from_str::<Report>(&text)?, example());
    Ok(())
}

fn example() -> Report {
    let moment =
        Moment { at_ms: 313.6, who: "client".to_owned(), what: "first answer from lb2".to_owned() };
    let scenario = ScenarioReport {
        name: "active-dies".to_owned(),
        verdict: Verdict::Fail,
        failures: vec!["499 of 500 connections survived".to_owned()],
        connections: Connections { opened: 500, survived: 499, reset: 1, ..Default::default() },
        new_connections: NewConnections { attempted: 412, succeeded: 412 },
        outage_ms: Some(314.2),
        outage_limit_ms: 400.0,
        longest_stall_ms: 520.5,
        takeover_ms: None,
        probes: Probes { sent: 4_000, lost: 314, longest_loss: 312 },
        clients_seen: vec![[10, 77, 0, 1].into()],
        by_real_server: BTreeMap::from([("rs1".to_owned(), 911)]),
        packets: Packets {
            judged: BTreeMap::from([("vrrp".to_owned(), 40)]),
            malformed: 0,
            dropped: 0,
        },
        pool_change: Some(PoolChange {
            real_server: "rs4".to_owned(),
            share_before: 0.0,
            share_after: 0.25,
            opened_since: 200,
            opened_there_since: 51,
            first_new_ms: Some(14.2),
            last_new_ms: None,
            kept: 0,
        }),
        timeline: vec![moment],
    };
    Report {
        kernel: "6.18.44".to_owned(),
        xdp_mode: "native".to_owned(),
        advertisement_interval_ms: 100,
        scenarios: vec![scenario],
        verdict: Verdict::Fail,
    }
}
