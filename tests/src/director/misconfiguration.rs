//! Configurations that must be refused, as an operator writes them.

/// A text that is wrong, and what the refusal has to name.
pub struct Misconfiguration {
    pub what: &'static str,
    pub text: String,
    /// What follows the name of the file: line, column, and the key.
    pub place: &'static str,
}

/// `good` is a [`configuration`](super::configuration), with one fault each.
pub fn misconfigurations(good: &str) -> [Misconfiguration; 6] {
    let duplicate =
        "\n[[virtual-service]]\nname = \"other\"\naddress = \"10.77.0.100:80\"\n".to_owned();
    [
        ("a wrong key", good.replace("priority", "priorty"), ":9:1: virtual-router[0]"),
        ("an unknown mode", good.replace("\"dr\"", "\"teleport\""), ":17:14: virtual-service[0]"),
        ("a duplicate service", good.to_owned() + &duplicate, ":30:11: virtual-service[1].address"),
        ("a port of 0", good.replace("100:80", "100:0"), ":15:11: virtual-service[0].address"),
        ("no address", good.replace("10.77.0.100:80", "ten:80"), ":15:11: virtual-service[0]"),
        ("an empty file", String::new(), ":1:1: "),
    ]
    .map(|(what, text, place)| Misconfiguration { what, text, place })
}
