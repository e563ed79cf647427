use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::load;

#[test]
fn a_real_server_is_added_after_the_last_of_its_service_and_comments_stay() {
    check(
        HEADERS,
        &add_real("web", "10.0.0.13", 2),
        "weight = 3 # the big one
# weight = 4

",
        "weight = 3 # the big one
# weight = 4

[[virtual-service.real-server]]
address = \"10.0.0.13\"
weight = 2

",
    );
}

#[test]
fn the_first_real_server_of_a_service_comes_after_the_service() {
    check(
        HEADERS,
        &add_real("dns", "10.0.0.13", 1),
        "protocol = \"udp\"\n",
        "protocol = \"udp\"

[[virtual-service.real-server]]
address = \"10.0.0.13\"
weight = 1
",
    );
}

#[test]
fn a_service_is_added_after_the_last_one() {
    check(
        HEADERS,
        &add_service("ssh"),
        "protocol = \"udp\"\n",
        "protocol = \"udp\"

[[virtual-service]]
name = \"ssh\"
address = \"10.0.0.100:22\"
protocol = \"tcp\"
forwarding = \"dr\"
",
    );
}

#[test]
fn what_a_service_is_given_is_written_and_nothing_else() {
    let service = NewService {
        address: "10.0.0.100:5000-5999".parse().unwrap(),
        hash: Some(Hash::Source { prefix_len: 24 }),
        table_size: Some(1_021),
        ..new_service("ftp")
    };
    check(
        HEADERS,
        &Edit::AddService(service.clone()),
        "protocol = \"udp\"\n",
        "protocol = \"udp\"

[[virtual-service]]
name = \"ftp\"
address = \"10.0.0.100:5000-5999\"
protocol = \"tcp\"
forwarding = \"dr\"
hash = \"source\"
source-prefix = 24
table-size = 1021
",
    );
    for (hash, want) in [
        (Hash::Flow, "hash = \"flow\"\n"),
        (Hash::Source { prefix_len: 32 }, "hash = \"source\"\ntable-size"),
    ] {
        let edit = Edit::AddService(NewService { hash: Some(hash), ..service.clone() });
        let edited = apply(HEADERS, &edit).unwrap();
        assert!(edited.contains(want), "{edited}");
        valid(&edited);
    }
}

#[test]
fn a_service_is_added_to_a_file_without_one() {
    check(
        "# Only this.\n[director]\ninterfaces = [\"eth0\"]\n",
        &add_service("ssh"),
        "[\"eth0\"]\n",
        "[\"eth0\"]

[[virtual-service]]
name = \"ssh\"
address = \"10.0.0.100:22\"
protocol = \"tcp\"
forwarding = \"dr\"
",
    );
}

#[test]
fn a_real_server_is_deleted_with_the_comment_above_it_alone() {
    check(
        HEADERS,
        &delete_real("web", "10.0.0.11"),
        "
# The old one.
[[virtual-service.real-server]]
address = \"10.0.0.11\"
",
        "",
    );
    check(
        HEADERS,
        &delete_real("web", "10.0.0.12"),
        "
[[virtual-service.real-server]]
address = \"10.0.0.12\"
weight = 3 # the big one
# weight = 4
",
        "",
    );
}

#[test]
fn a_service_is_deleted_with_its_real_servers_and_nothing_else() {
    let edited = apply(HEADERS, &Edit::DeleteService { name: "web".to_owned() }).unwrap();
    assert_eq!(
        edited,
        r#"# lb1, ask the network team
[director]
interfaces = ["eth0"]
# xdp-mode = "native"

# Names end here.

[[virtual-service]]
name = "dns"
address = "10.0.0.100:53"
protocol = "udp"

# The VIP of both.
[[virtual-router]]
name = "vip"
interface = "eth0"
vrid = 51
vips = ["10.0.0.100/24"]
# virtual-mac = true
"#
    );
}

#[test]
fn a_weight_is_replaced_where_it_stands_or_added_below_the_address() {
    check(
        HEADERS,
        &set_real("web", "10.0.0.12", 7),
        "weight = 3 # the big one",
        "weight = 7 # the big one",
    );
    check(
        HEADERS,
        &set_real("web", "10.0.0.11", 0),
        "address = \"10.0.0.11\"\n",
        "address = \"10.0.0.11\"\nweight = 0\n",
    );
    check(
        INLINE,
        &set_real("web", "10.0.0.12", 7),
        "{ address = \"10.0.0.12\" }",
        "{ address = \"10.0.0.12\", weight = 7 }",
    );
    check(INLINE, &set_real("web", "10.0.0.11", 0), "weight = 2", "weight = 0");
}

#[test]
fn inline_arrays_keep_their_layout_and_the_comments_of_their_lines() {
    check(
        INLINE,
        &add_real("web", "10.0.0.13", 1),
        "  { address = \"10.0.0.12\" }, # twelve\n",
        "  { address = \"10.0.0.12\" }, # twelve\n  { address = \"10.0.0.13\", weight = 1 },\n",
    );
    check(
        INLINE,
        &delete_real("web", "10.0.0.11"),
        "  { address = \"10.0.0.11\", weight = 2 }, # eleven\n  # the new one\n",
        "  # the new one\n",
    );
    check(
        INLINE,
        &delete_real("web", "10.0.0.12"),
        "  # the new one\n  { address = \"10.0.0.12\" }, # twelve\n",
        "",
    );
    check(
        INLINE,
        &add_real("dns", "10.0.0.13", 1),
        "[{ address = \"10.0.0.11\" }]",
        "[{ address = \"10.0.0.11\" }, { address = \"10.0.0.13\" }]",
    );
    check(
        INLINE,
        &add_real("empty", "10.0.0.13", 1),
        "real-server = []",
        "real-server = [{ address = \"10.0.0.13\", weight = 1 }]",
    );
}

#[test]
fn services_in_an_inline_array_can_be_edited() {
    let text = "director = { interfaces = [\"eth0\"] }
virtual-service = [
  { name = \"web\", address = \"10.0.0.100:80\" }
]
";
    check(
        text,
        &add_service("ssh"),
        ":80\" }\n",
        ":80\" },\n  { name = \"ssh\", address = \"10.0.0.100:22\", protocol = \"tcp\", forwarding = \"dr\" }\n",
    );
    check(
        text,
        &add_real("web", "10.0.0.13", 2),
        ":80\" }",
        ":80\", real-server = [{ address = \"10.0.0.13\", weight = 2 }] }",
    );
}

#[test]
fn lines_that_end_with_carriage_returns_stay_so() {
    let text = HEADERS.replace('\n', "\r\n");
    let edited = apply(&text, &add_real("web", "10.0.0.13", 2)).unwrap();
    assert_eq!(edited.matches('\n').count(), edited.matches("\r\n").count());
    assert_eq!(
        edited.len(),
        text.len()
            + "\r\n[[virtual-service.real-server]]\r\naddress = \"10.0.0.13\"\r\nweight = 2\r\n"
                .len()
    );
}

#[test]
fn a_byte_order_mark_moves_no_place() {
    let text = format!("\u{feff}{HEADERS}");
    let edited = apply(&text, &set_real("web", "10.0.0.12", 7)).unwrap();
    assert_eq!(edited, text.replace("weight = 3", "weight = 7"));
    let edited = apply(&text, &add_service("ssh")).unwrap();
    let inverse = Edit::DeleteService { name: "ssh".to_owned() };
    assert_eq!(apply(&edited, &inverse).unwrap(), text);
}

#[test]
fn what_cannot_be_edited_says_why() {
    for (edit, want) in [
        (Edit::DeleteService { name: "wbe".to_owned() }, "no service `wbe`, did you mean `web`?"),
        (
            Edit::DeleteService { name: "mail".to_owned() },
            "no service `mail`, expected one of `web`, `dns`",
        ),
        (
            delete_real("web", "10.0.0.1"),
            "no real server 10.0.0.1 in web, expected one of 10.0.0.11, 10.0.0.12",
        ),
        (set_real("dns", "10.0.0.1", 1), "no real server 10.0.0.1 in dns, it has none yet"),
        (add_service("web"), "service `web` exists already"),
        (
            add_real("web", "10.0.0.11", 1),
            "real server 10.0.0.11 exists already in web: `lbctl real set` changes its weight",
        ),
    ] {
        assert_eq!(apply(HEADERS, &edit).unwrap_err().to_string(), want);
    }
    assert!(matches!(
        apply("[[virtual-service\n", &add_service("web")),
        Err(EditError::Unreadable { .. })
    ));
}

#[test]
fn a_service_in_pieces_is_left_to_a_person() {
    let text = "[director]
interfaces = [\"eth0\"]
[[virtual-service]]
name = \"web\"
address = \"10.0.0.100:80\"
[[virtual-router]]
name = \"vip\"
interface = \"eth0\"
vrid = 1
vips = [\"10.0.0.100\"]
[[virtual-service.real-server]]
address = \"10.0.0.11\"
";
    let error = apply(text, &Edit::DeleteService { name: "web".to_owned() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the table at line 3 is written in more than one piece: edit the file by hand, then \
         `lbctl config reload`"
    );
}

proptest! {
    #[test]
    fn an_edit_and_its_inverse_give_the_same_text(
        layout in layouts(), weight: u16, service in 0usize..3, old_weight: u16,
    ) {
        let text = &layout;
        let names = ["web", "dns", "empty"];
        let service = names[service];
        let address = "10.0.0.200";
        let added = apply(text, &add_real(service, address, weight)).unwrap();
        valid(&added);
        prop_assert_eq!(&apply(&added, &delete_real(service, address)).unwrap(), text);

        let with_service = apply(text, &add_service("ssh")).unwrap();
        valid(&with_service);
        let inverse = Edit::DeleteService { name: "ssh".to_owned() };
        prop_assert_eq!(&apply(&with_service, &inverse).unwrap(), text);

        let before = apply(text, &set_real("web", "10.0.0.11", old_weight)).unwrap();
        let set = apply(&before, &set_real("web", "10.0.0.11", weight)).unwrap();
        valid(&set);
        prop_assert_eq!(apply(&set, &set_real("web", "10.0.0.11", old_weight)).unwrap(), before);
    }

    #[test]
    fn every_comment_that_stands_alone_survives_every_deletion(layout in layouts()) {
        let alone = |text: &str| text.matches("# alone").count();
        for edit in [
            delete_real("web", "10.0.0.11"),
            Edit::DeleteService { name: "web".to_owned() },
            Edit::DeleteService { name: "empty".to_owned() },
        ] {
            let edited = apply(&layout, &edit).unwrap();
            valid(&edited);
            prop_assert_eq!(alone(&edited), alone(&layout), "{}", edited);
        }
    }
}

/// Valid files with three services, in every form and with comments in every place.
fn layouts() -> impl Strategy<Value = String> {
    let between = || {
        prop::sample::select(vec![
            "\n",
            "",
            "\n# above\n",
            "# below\n\n",
            "# below\n\n# alone\n\n",
            "\n# alone\n\n",
            "\n\n",
        ])
    };
    let reals = || {
        prop::sample::select(vec![
            "\n[[virtual-service.real-server]]\naddress = \"10.0.0.11\"\n",
            "\n[[virtual-service.real-server]]\naddress = \"10.0.0.11\"\nweight = 2 # two\n\n# above\n[[virtual-service.real-server]]\naddress = \"10.0.0.12\" # twelve\n",
            "  [[virtual-service.real-server]]\n  address = \"10.0.0.11\"\n  [[virtual-service.real-server]]\n  address = \"10.0.0.12\"\n",
            "real-server = [{ address = \"10.0.0.11\" }]\n",
            "real-server = [ { address = \"10.0.0.11\" }, { address = \"10.0.0.12\" } ]\n",
            "real-server = [\n  { address = \"10.0.0.11\" }, # one, two\n  # above\n  { address = \"10.0.0.12\", weight = 2 }, # two\n]\n",
            "real-server = [\n    { address = \"10.0.0.11\" },\n    { address = \"10.0.0.12\" } # no comma\n    # end\n]\n",
        ])
    };
    let none = prop::sample::select(vec!["", "real-server = []\n", "real-server = [\n]\n"]);
    (between(), reals(), between(), reals(), between(), none, between(), any::<bool>()).prop_map(
        |(a, web, b, dns, c, empty, d, router_last)| {
            let dns = dns.replace("10.0.0.1", "10.0.1.1");
            let router = "[[virtual-router]]\nname = \"vip\"\ninterface = \"eth0\"\nvrid = 1\nvips = [\"10.0.0.100\"]\n";
            let (first, last) = if router_last { ("", router) } else { (router, "") };
            format!(
                "# top\n[director]\ninterfaces = [\"eth0\"]\n{a}{first}{b}\
                 [[virtual-service]]\nname = \"web\"\naddress = \"10.0.0.100:80\"\n{web}{b}\
                 [[virtual-service]]\nname = \"dns\"\naddress = \"10.0.0.100:53\"\n{dns}{c}\
                 [[virtual-service]]\nname = \"empty\"\naddress = \"10.0.0.100:54\"\n{empty}{d}{last}"
            )
        },
    )
}

const HEADERS: &str = r#"# lb1, ask the network team
[director]
interfaces = ["eth0"]
# xdp-mode = "native"

[[virtual-service]]
name = "web"
address = "10.0.0.100:80"

# The old one.
[[virtual-service.real-server]]
address = "10.0.0.11"

[[virtual-service.real-server]]
address = "10.0.0.12"
weight = 3 # the big one
# weight = 4

# Names end here.

[[virtual-service]]
name = "dns"
address = "10.0.0.100:53"
protocol = "udp"

# The VIP of both.
[[virtual-router]]
name = "vip"
interface = "eth0"
vrid = 51
vips = ["10.0.0.100/24"]
# virtual-mac = true
"#;

const INLINE: &str = r#"[director]
interfaces = ["eth0"]

[[virtual-service]]
name = "web"
address = "10.0.0.100:80"
real-server = [
  { address = "10.0.0.11", weight = 2 }, # eleven
  # the new one
  { address = "10.0.0.12" }, # twelve
]

[[virtual-service]]
name = "dns"
address = "10.0.0.100:53"
real-server = [{ address = "10.0.0.11" }]

[[virtual-service]]
name = "empty"
address = "10.0.0.100:54"
real-server = []
"#;

fn add_service(name: &str) -> Edit {
    Edit::AddService(new_service(name))
}

fn new_service(name: &str) -> NewService {
    NewService {
        name: name.to_owned(),
        address: "10.0.0.100:22".parse().unwrap(),
        protocol: Protocol::Tcp,
        forwarding: Forwarding::Dr,
        hash: None,
        table_size: None,
    }
}

fn add_real(service: &str, address: &str, weight: u16) -> Edit {
    let address = address.parse().unwrap();
    Edit::AddRealServer { service: service.to_owned(), address, weight }
}

fn set_real(service: &str, address: &str, weight: u16) -> Edit {
    let address = address.parse().unwrap();
    Edit::SetRealServer { service: service.to_owned(), address, weight }
}

fn delete_real(service: &str, address: &str) -> Edit {
    Edit::DeleteRealServer { service: service.to_owned(), address: address.parse().unwrap() }
}

/// The edit replaces the one occurrence of `before` by `after`, and the result is valid.
#[track_caller]
fn check(text: &str, edit: &Edit, before: &str, after: &str) {
    assert_eq!(text.matches(before).count(), 1, "once in the text: {before}");
    let edited = apply(text, edit).unwrap();
    assert_eq!(edited, text.replace(before, after));
    valid(&edited);
}

#[track_caller]
fn valid(text: &str) {
    if let Err(errors) = load(Path::new("lb.toml"), text) {
        panic!("{errors}\n{text}");
    }
}
