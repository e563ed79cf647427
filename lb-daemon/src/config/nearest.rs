//! The name that was probably meant.

/// The nearest of `known` to `name`, if it is near enough to be a slip of the hand.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |known: &str| strsim::damerau_levenshtein(name, known);
    let nearest = known.into_iter().min_by_key(|known| distance(known))?;
    // A third of the letters, so that `web` is near `wbe` and not near `dns`.
    let allowed = (name.chars().count().max(nearest.chars().count()) / 3).clamp(1, 3);
    (distance(nearest) <= allowed).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_near_and_another_word_is_not() {
        for (name, want) in [
            ("wbe", Some("web")),
            ("virtual-servce", Some("virtual-service")),
            ("dns", None),
            ("health-check", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, ["web", "virtual-service"]), want, "{name}");
        }
        assert_eq!(nearest("web", []), None);
    }
}
