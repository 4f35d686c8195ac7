//! Texts of customers: what jobs hand in, what customers decide, what readers see, and who may do what.

mod bodies;
mod callers;
mod customers;
mod decisions;
mod hidden;
mod reading;

use serde_json::{Value, json};

use crate::client::Answer;
use crate::server::Server;

/// A server, and what jobs, readers and officers ask of it.
struct Bot {
    server: Server,
}

impl Bot {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("AUSPEX__SERVER__RATE_LIMIT__MAX", "1000000"),
            ("AUSPEX__DIALOGUES__RATE_LIMIT__MAX", "1000000"),
        ];
        all.extend(settings);
        Self {
            server: Server::start_with(&all),
        }
    }

    /// A key with these scopes.
    fn key(&self, scopes: &[&str]) -> String {
        let body = json!({"name": "test", "scopes": scopes});
        let made = self.server.post("/v1/api-keys", body.to_string());
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()["key"].as_str().expect("a key").to_owned()
    }

    fn ask(&self, key: &str, method: &str, path: &str, body: &str) -> Answer {
        let headers = [("X-API-Key", key), ("Content-Type", "application/json")];
        let mut connection = self.server.connect();
        connection.send(method, path, &headers, body.as_bytes())
    }

    fn push(&self, customer: &str, dialogue: &str, text: &str) -> Answer {
        let body = json!({"text": text, "language": "en"});
        let path = format!("/data/{customer}/{dialogue}");
        self.server.post(&path, body.to_string())
    }

    fn decide(&self, dialogue: &str, consent: bool) -> Answer {
        let path = format!("/consents/{dialogue}");
        self.server.post(&path, consent.to_string())
    }

    /// Hands in a dialogue whose customer agrees.
    fn keep(&self, customer: &str, dialogue: &str, texts: &[&str]) {
        for text in texts {
            let pushed = self.push(customer, dialogue, text);
            assert_eq!(pushed.status, 200, "{}", pushed.text());
        }
        let decided = self.decide(dialogue, true);
        assert_eq!(decided.status, 200, "{}", decided.text());
        assert_eq!(decided.json()["texts"], texts.len());
    }

    /// The texts that a list shows, in its order.
    fn texts(&self, path: &str) -> Vec<String> {
        let list = self.server.get(path);
        assert_eq!(list.status, 200, "{path}: {}", list.text());
        texts(&list.json())
    }

    fn status(&self, dialogue: &str) -> Answer {
        self.server.get(&format!("/v1/dialogues/{dialogue}"))
    }
}

fn texts(list: &Value) -> Vec<String> {
    let rows = list["data"].as_array().expect("a list").iter();
    rows.map(|row| row["text"].as_str().expect("a text").to_owned())
        .collect()
}
