//! What `INFO` tells of Redis' memory.

/// Of the sections `memory` and `stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Whether it would drop keys when it is full.
    pub(super) may_evict: bool,
    /// Keys that it has dropped since it started.
    pub(super) evicted: u64,
}

impl Memory {
    /// What is not said, as by a service that hides it, counts as harmless.
    pub(super) fn of(info: &str) -> Self {
        let value = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines
                .find(|(found, _)| *found == name)
                .map(|(_, value)| value.trim())
        };
        let number = |name| {
            value(name)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0_u64)
        };
        let policy = value("maxmemory_policy").unwrap_or("noeviction");
        Self {
            may_evict: number("maxmemory") > 0 && policy != "noeviction",
            evicted: number("evicted_keys"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_memory_with_a_policy_drops_keys() {
        let of = |maxmemory, policy| {
            let info = format!(
                "# Memory\r\nused_memory:9\r\nmaxmemory:{maxmemory}\r\nmaxmemory_policy:{policy}\r\n\r\n# Stats\r\nevicted_keys:7\r\n"
            );
            Memory::of(&info)
        };
        assert!(of("1000", "allkeys-lru").may_evict);
        assert!(of("1000", "volatile-ttl").may_evict);
        assert!(!of("1000", "noeviction").may_evict);
        assert!(!of("0", "allkeys-lru").may_evict);
        assert_eq!(of("0", "noeviction").evicted, 7);
        for garbage in ["", ":", "maxmemory:-1\nevicted_keys:x", "maxmemory"] {
            assert_eq!(Memory::of(garbage), Memory::default(), "{garbage}");
        }
    }
}
