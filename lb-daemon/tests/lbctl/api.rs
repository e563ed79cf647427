//! The API as another client than `lbctl` meets it, and the socket.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use lb_daemon::control::{
    client::{Client, ClientError},
    server,
};
use serde_json::{Value, json};

use crate::fake::Fake;

#[test]
fn every_error_is_json_in_one_form() {
    let fake = Fake::start();
    let reals = "/v1/services/web/real-servers";
    for (method, path, body, status, kind, message) in [
        ("GET", "/", "", 404, "not-found", "GET /: no such path"),
        ("GET", "/v2/status", "", 404, "not-found", "GET /v2/status: no such path"),
        ("PUT", "/v1/status", "", 405, "invalid", "PUT /v1/status: not a method of this path"),
        ("POST", reals, "{", 422, "invalid", "request body: EOF while parsing an object"),
        (
            "POST",
            reals,
            r#"{"address": "10.0.0.1", "wait": 1}"#,
            422,
            "invalid",
            "unknown field `wait`",
        ),
        ("POST", reals, r#"{"address": "10.0.0.1:80"}"#, 422, "invalid", "invalid IPv4 address"),
        ("POST", reals, r#"{"address": "10.77.0.11"}"#, 409, "conflict", "exists already in web"),
        ("POST", reals, r#"{"address": "127.0.0.1"}"#, 422, "invalid", "loopback address"),
        ("DELETE", "/v1/services/mail", "", 404, "not-found", "no service `mail`"),
        ("DELETE", "/v1/services/web/real-servers/x", "", 400, "invalid", "DELETE /v1/services"),
        ("GET", "/v1/real-servers?name=web", "", 422, "invalid", "expected `service=NAME`"),
        ("GET", "/v1/services/mail", "", 404, "not-found", "no service `mail`"),
        (
            "POST",
            "/v1/services",
            r#"{"name": "x", "address": "10.77.0.100:9-1"}"#,
            422,
            "invalid",
            "`9-1` is not a range of ports",
        ),
        ("GET", "/v1/flows/explain", "", 422, "invalid", "`src` is missing, expected src="),
        (
            "GET",
            "/v1/flows/explain?src=10.0.0.1:1&dst=10.0.0.2&protocol=tcp",
            "",
            422,
            "invalid",
            "`dst` is `10.0.0.2`, expected src=",
        ),
        (
            "GET",
            "/v1/flows/explain?src=10.0.0.1:1&src=10.0.0.1:1",
            "",
            422,
            "invalid",
            "`src` is there twice",
        ),
        (
            "GET",
            "/v1/flows/explain?src=10.0.0.1:1&dst=10.0.0.2:2&protocol=udp&packet=opening",
            "",
            422,
            "invalid",
            "udp has no packet that opens a flow",
        ),
        ("GET", "/v1/flows/explain?ttl=1", "", 422, "invalid", "`ttl` is unknown, expected src="),
        ("POST", reals, &"x".repeat(70_000), 413, "invalid", "length limit exceeded"),
    ] {
        let (got, answer) = exchange(&fake.socket, method, path, body);
        assert_eq!(got, status, "{method} {path}: {answer}");
        assert_eq!(answer["kind"], kind, "{method} {path}: {answer}");
        let text = answer["message"].as_str().unwrap();
        assert!(text.contains(message), "{method} {path}: {text}");
    }
}

#[test]
fn a_change_is_answered_with_what_was_done() {
    let fake = Fake::start();
    let (status, answer) = exchange(
        &fake.socket,
        "POST",
        "/v1/services",
        r#"{"name": "ssh", "address": "10.77.0.100:22"}"#,
    );
    assert_eq!(status, 201);
    assert_eq!(
        answer,
        json!({"edit": "add-service", "name": "ssh", "address": "10.77.0.100:22",
               "protocol": "tcp", "forwarding": "dr"})
    );
    let path = "/v1/services/web/real-servers/10.77.0.11";
    let (status, answer) = exchange(&fake.socket, "PATCH", path, r#"{"weight": 9}"#);
    assert_eq!((status, &answer["weight"]), (200, &json!(9)));
    assert!(fake.text().contains("weight = 9"));
}

#[test]
fn every_option_of_a_service_can_be_given_and_is_answered() {
    let fake = Fake::start();
    let body = r#"{"name": "ftp", "address": "10.77.0.100:5000-5999", "hash": "source/24", "table_size": 1021}"#;
    let (status, answer) = exchange(&fake.socket, "POST", "/v1/services", body);
    assert_eq!(
        (status, answer),
        (
            201,
            json!({"edit": "add-service", "name": "ftp", "address": "10.77.0.100:5000-5999",
                   "protocol": "tcp", "forwarding": "dr", "hash": "source/24", "table_size": 1021})
        )
    );
    let (_, detail) = exchange(&fake.socket, "GET", "/v1/services/ftp", "");
    assert_eq!(detail["service"]["hash"], "source/24");
}

#[test]
fn addresses_may_be_encoded_in_a_query() {
    let fake = Fake::start();
    let path =
        "/v1/flows/explain?src=10.0.0.1%3A1&dst=10.77.0.100%3a80&protocol=tcp&packet=opening";
    let (status, answer) = exchange(&fake.socket, "GET", path, "");
    assert_eq!((status, &answer["real_server"]), (200, &json!("10.77.0.12")));
}

#[test]
fn the_socket_is_for_its_group_and_its_folder_is_made() {
    let fake = Fake::start();
    let mode = fs::metadata(&fake.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn a_socket_is_replaced_only_if_nobody_answers_on_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _within = runtime.enter();
    let fake = Fake::start();
    let error = server::bind(&fake.socket).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(error.to_string(), "another lbd answers on it");

    let stale = fake.folder().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    server::bind(&stale).unwrap();

    let file = fake.folder().join("notes.txt");
    fs::write(&file, "mine").unwrap();
    assert_eq!(server::bind(&file).unwrap_err().to_string(), "exists and is not a socket");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn shutdown_ends_with_a_client_connected_and_removes_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lbd.sock");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fake = Fake::start();
    let served = runtime.block_on(async {
        let listener = server::bind(&socket).unwrap();
        let mut half = UnixStream::connect(&socket).unwrap();
        half.write_all(b"GET /v1/status HTTP/1.1\r\nHost:").unwrap();
        let limit = std::time::Duration::from_secs(20);
        let served = server::serve(listener, fake.control.clone(), async {});
        let ended = tokio::time::timeout(limit, served).await;
        drop(half);
        ended
    });
    served.expect("ends").unwrap();
    assert!(!socket.exists());
}

#[test]
fn an_answer_of_another_version_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lbd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let daemon = std::thread::spawn(move || {
        for body in ["{\"director\": 1}", "oops"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            let status = if body == "oops" { "500 Oops" } else { "200 OK" };
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        }
    });
    let client = Client::new(&socket);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for part in ["invalid type: integer `1`", "500 Internal Server Error"] {
        let error = runtime.block_on(client.status()).unwrap_err();
        assert!(matches!(error, ClientError::NotUnderstood { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains("compare `lbd --version`"), "{error}");
    }
    daemon.join().unwrap();
}

fn exchange(socket: &Path, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: lbd\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A body that is too large may be refused before it is read.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let json = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    (status.unwrap(), json)
}
