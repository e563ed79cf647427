//! `flow explain`: the loaded program says what it would do with a packet, and does not do it.

use aya::programs::{ProgramError, TestRun, TestRunOptions};
use lb_ebpf::abi::Explanation;

use super::{Dataplane, LoadError, program};

#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("run the XDP program")]
    Run(#[source] ProgramError),
    #[error("the XDP program gave no explanation")]
    NoAnswer,
}

/// The beginning of the context of a test run, `struct xdp_md`: offsets in the data.
const CONTEXT_FIELDS: usize = 6;

impl Dataplane {
    /// Asks the program about a frame, as if it came in by `ifindex`.
    pub fn explain(&mut self, frame: &[u8], ifindex: u32) -> Result<Explanation, ExplainError> {
        let question = bytes(&Explanation::question());
        let data = [&question[..], frame].concat();
        let mut out = vec![0; data.len()];
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        #[expect(clippy::cast_possible_truncation, reason = "some tens of bytes")]
        let metadata = question.len() as u32;
        // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let context: [u32; CONTEXT_FIELDS] = [metadata, len, 0, ifindex, 0, 0];
        let context: Vec<u8> = context.into_iter().flat_map(u32::to_ne_bytes).collect();
        let options = TestRunOptions {
            data_in: Some(&data),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..Default::default()
        };
        program(&mut self.ebpf)?.test_run(options).map_err(ExplainError::Run)?;
        read(&out).ok_or(ExplainError::NoAnswer)
    }
}

fn bytes(explanation: &Explanation) -> Vec<u8> {
    let Explanation { question, verdict, why, current, previous, real_server, slot, service } =
        *explanation;
    let mut bytes = question.to_ne_bytes().to_vec();
    bytes.extend([verdict, why]);
    for index in [current, previous, real_server] {
        bytes.extend(index.to_ne_bytes());
    }
    bytes.extend(slot.to_ne_bytes());
    bytes.extend(service.to_ne_bytes());
    bytes
}

/// `None` if nothing was answered.
fn read(bytes: &[u8]) -> Option<Explanation> {
    let (head, _) = bytes.split_first_chunk::<{ size_of::<Explanation>() }>()?;
    let [q0, q1, q2, q3, verdict, why, c0, c1, p0, p1, r0, r1, s0, s1, s2, s3, i0, i1, i2, i3] =
        *head;
    let answer = Explanation {
        question: u32::from_ne_bytes([q0, q1, q2, q3]),
        verdict,
        why,
        current: u16::from_ne_bytes([c0, c1]),
        previous: u16::from_ne_bytes([p0, p1]),
        real_server: u16::from_ne_bytes([r0, r1]),
        slot: u32::from_ne_bytes([s0, s1, s2, s3]),
        service: u32::from_ne_bytes([i0, i1, i2, i3]),
    };
    (answer.verdict != Explanation::NONE).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let answer = Explanation {
            verdict: 1,
            why: 2,
            current: 0x8003,
            previous: 4,
            real_server: 5,
            slot: 6,
            service: 7,
            ..Explanation::question()
        };
        assert_eq!(read(&bytes(&answer)), Some(answer));
        assert_eq!(read(&bytes(&Explanation::question())), None);
        assert_eq!(read(&[0; 19]), None);
    }
}
