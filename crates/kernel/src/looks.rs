//! When a changed file is judged. What was found is compared with what was found at the last look: what differs may
//! still be being written.

/// Decides when what was found is judged.
pub struct Looks<T> {
    judged: T,
    last: T,
}

impl<T: Clone + PartialEq> Looks<T> {
    /// `found` is in force.
    pub fn new(found: T) -> Self {
        Self {
            judged: found.clone(),
            last: found,
        }
    }

    /// Whether it is new, and complete as far as can be told. Then it counts as judged.
    pub fn is_due(&mut self, found: &T, is_complete: bool) -> bool {
        let is_steady = is_complete || self.last == *found;
        let is_due = is_steady && self.judged != *found;
        self.last = found.clone();
        if is_due {
            self.judged = found.clone();
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_judged_once_and_when_it_was_the_same_twice() {
        let mut looks = Looks::new("a");
        let mut is_due = |text| looks.is_due(&text, false);
        assert!(!is_due("a") && !is_due("a"), "it is in force");
        assert!(!is_due("b"), "it may be being written");
        assert!(!is_due("bc"), "and it was");
        assert!(is_due("bc"));
        assert!(!is_due("bc") && !is_due("bc"), "it was judged");
        assert!(!is_due("a"));
        assert!(is_due("a"), "the one from before again");
    }

    #[test]
    fn a_file_that_is_away_for_a_moment_is_not_judged() {
        let mut looks = Looks::new(Some("a"));
        assert!(!looks.is_due(&None, false));
        assert!(!looks.is_due(&Some("a"), false));
        assert!(!looks.is_due(&None, false));
        assert!(looks.is_due(&None, false), "away for good");
    }

    #[test]
    fn who_says_that_it_is_complete_does_not_wait() {
        let mut looks = Looks::new("a");
        assert!(looks.is_due(&"b", true));
        assert!(!looks.is_due(&"b", true));
    }
}
