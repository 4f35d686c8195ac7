//! Which clients there are, and at which origins pages may be one of them.

use std::collections::HashMap;

use auspex_kernel::id::ClientId;

use super::shards::Shards;
use crate::types::client::Origins;

/// The clients, to be asked by their id and by an origin.
#[derive(Debug, Default)]
pub(super) struct Clients {
    origins: Shards<ClientId, Origins>,
    /// Of how many clients each is.
    counts: Shards<String, usize>,
}

impl Clients {
    pub(super) fn contains(&self, id: &ClientId) -> bool {
        self.origins.contains(id)
    }

    /// Whether it is one of any client.
    pub(super) fn is_origin(&self, origin: &str) -> bool {
        self.counts.contains(origin)
    }

    /// Puts a client in, or takes it out.
    pub(super) fn set(&self, id: ClientId, origins: Option<Origins>) {
        let before = self.origins.with(&id, Origins::clone).unwrap_or_default();
        let after = origins.clone().unwrap_or_default();
        self.origins.set(id, origins);
        for origin in after.difference(&before) {
            let count = self.count(origin);
            self.counts.set(origin.clone(), Some(count + 1));
        }
        for origin in before.difference(&after) {
            let left = self.count(origin).checked_sub(1);
            self.counts
                .set(origin.clone(), left.filter(|count| *count > 0));
        }
    }

    /// Replaces all of them.
    pub(super) fn fill(&self, clients: Vec<(ClientId, Origins)>) {
        let mut counts = HashMap::new();
        for origin in clients.iter().flat_map(|(_, origins)| origins.iter()) {
            *counts.entry(origin.clone()).or_insert(0) += 1;
        }
        self.counts.fill(counts);
        self.origins.fill(clients);
    }

    fn count(&self, origin: &str) -> usize {
        self.counts.with(origin, |count| *count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ClientId {
        ClientId::from_stored(text)
    }

    fn origins(texts: &[&str]) -> Origins {
        Origins::new(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn an_origin_stays_until_the_last_client_leaves_it() {
        let clients = Clients::default();
        let are = |expected: [bool; 3]| {
            let found = ["x", "y", "z"].map(|origin| clients.is_origin(origin));
            assert_eq!(found, expected);
        };
        clients.set(id("A"), Some(origins(&["x", "y"])));
        clients.set(id("B"), Some(origins(&["y"])));
        clients.set(id("C"), Some(origins(&[])));
        are([true, true, false]);
        clients.set(id("A"), Some(origins(&["z"])));
        clients.set(id("A"), Some(origins(&["z"])));
        are([false, true, true]);
        clients.set(id("B"), None);
        clients.set(id("B"), None);
        are([false, false, true]);
        assert!(clients.contains(&id("C")) && !clients.contains(&id("B")));
        clients.fill(vec![(id("A"), origins(&["x"])), (id("B"), origins(&["x"]))]);
        clients.set(id("A"), None);
        are([true, false, false]);
        clients.set(id("B"), Some(origins(&[])));
        are([false, false, false]);
    }
}
