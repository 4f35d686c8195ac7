//! Settings of the dialogues service: the `[dialogues]` section.

use std::path::PathBuf;
use std::time::Duration;

use auspex_kernel::config::ConfigError;
use auspex_kernel::db::check_url;
use auspex_kernel::quota::RateLimit;
use serde::Deserialize;

use crate::keys::MasterKeys;
use crate::language::Language;

/// Every setting with its default and its meaning.
pub(crate) const DEFAULTS: &str = include_str!("../defaults.toml");

/// The longest channel, policy version or purpose, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;
const DAYS_MAX: u32 = 36_500;

/// `[dialogues]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The database of the customers' keys; empty: beside the main one, or in it.
    pub keys_url: String,
    /// Wraps the customers' keys; several lines, newest first. Empty: read from a file.
    pub master_key: Hidden,
    /// The file with the master key; empty: one in the data folder.
    pub master_key_file: PathBuf,
    /// Whether readers without `data:identify` see pseudonyms in place of ids.
    pub pseudonyms: bool,
    /// How long the record of a decision is kept whose texts are not held; 0: for ever.
    pub decisions_days: u32,
    /// When texts are deleted.
    pub retention: Vec<RetentionRule>,
    /// `[dialogues.pending]`.
    pub pending: PendingConfig,
    /// `[dialogues.consent]`.
    pub consent: ConsentConfig,
    /// `[dialogues.rate_limit]`: of each route that jobs call, which do so for every customer.
    pub rate_limit: RateLimit,
    /// `[dialogues.statistics]`.
    pub statistics: StatisticsConfig,
}

/// A text that `Debug` does not show.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

/// `[dialogues.pending]`: texts that wait for their customer's decision.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingConfig {
    /// Of all texts together.
    pub bytes_max: usize,
    /// Of one text.
    pub text_bytes_max: usize,
    /// Texts of one dialogue.
    pub texts_max: usize,
    /// How long a dialogue waits for its next text or a decision.
    pub expires_after_s: u64,
}

impl PendingConfig {
    /// How long a dialogue waits for its next text or a decision.
    pub fn expires_after(&self) -> Duration {
        Duration::from_secs(self.expires_after_s)
    }
}

/// `[dialogues.consent]`: what a decision is recorded with where the request does not say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentConfig {
    /// Where the customer was asked.
    pub channel: String,
    /// Which text they agreed to.
    pub policy_version: String,
    /// What for.
    pub purpose: String,
}

/// `[[dialogues.retention]]`: texts are deleted when they are older than this.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Texts in this language alone: a tag, or a primary language for all of its tags.
    pub language: Option<String>,
    /// Texts given for this purpose alone.
    pub purpose: Option<String>,
    /// How old they may be, counted from when they were received.
    pub days: u32,
}

/// `[dialogues.statistics]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatisticsConfig {
    /// Smaller numbers are not shown.
    pub cell_min: u64,
}

impl Config {
    /// What types alone cannot say.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !self.keys_url.is_empty() {
            check_url(&self.keys_url).map_err(|error| {
                ConfigError::wrong("dialogues.keys_url", format!("cannot be used: {error}"))
            })?;
        }
        if !self.master_key.0.is_empty() {
            MasterKeys::parse(&self.master_key.0)
                .map_err(|reason| ConfigError::wrong("dialogues.master_key", reason.to_string()))?;
            if !self.master_key_file.as_os_str().is_empty() {
                let reason =
                    "does not go together with dialogues.master_key; leave one of them out";
                return Err(ConfigError::wrong("dialogues.master_key_file", reason));
            }
        }
        if self.master_key_file.starts_with("~") {
            let reason = "is taken as it is, where ~ is no home folder; write that out";
            return Err(ConfigError::wrong("dialogues.master_key_file", reason));
        }
        let pending = &self.pending;
        for (key, value) in [
            ("dialogues.pending.bytes_max", pending.bytes_max as u64),
            (
                "dialogues.pending.text_bytes_max",
                pending.text_bytes_max as u64,
            ),
            ("dialogues.pending.texts_max", pending.texts_max as u64),
            ("dialogues.pending.expires_after_s", pending.expires_after_s),
        ] {
            if value == 0 {
                return Err(ConfigError::wrong(key, "must be at least 1"));
            }
        }
        if pending.texts_max > 10_000 {
            let reason =
                "must be at most 10,000: the texts of a dialogue are stored in one transaction";
            return Err(ConfigError::wrong("dialogues.pending.texts_max", reason));
        }
        if self.decisions_days > DAYS_MAX {
            let reason = format!("must be at most {DAYS_MAX}");
            return Err(ConfigError::wrong("dialogues.decisions_days", reason));
        }
        self.rate_limit.check("dialogues.rate_limit")?;
        self.consent.check()?;
        self.retention.iter().try_for_each(RetentionRule::check)
    }
}

impl ConsentConfig {
    fn check(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("dialogues.consent.channel", &self.channel),
            ("dialogues.consent.policy_version", &self.policy_version),
            ("dialogues.consent.purpose", &self.purpose),
        ] {
            if !is_label(value) {
                let reason = format!("must be 1 to {LABEL_BYTES_MAX} printable ASCII characters");
                return Err(ConfigError::wrong(key, reason));
            }
        }
        Ok(())
    }
}

/// Whether a text may be a channel, a policy version or a purpose.
pub fn is_label(text: &str) -> bool {
    let is_printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    (1..=LABEL_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_printable)
}

impl RetentionRule {
    fn check(&self) -> Result<(), ConfigError> {
        let wrong =
            |reason: &str| Err(ConfigError::wrong("dialogues.retention", reason.to_owned()));
        if !(1..=DAYS_MAX).contains(&self.days) {
            return wrong("each table needs days, from 1 to 36,500");
        }
        if let Some(tag) = &self.language {
            match Language::parse(tag) {
                Err(_) => return wrong("a language is a tag such as pt or pt-BR"),
                // Texts are compared with it as they are stored.
                Ok(language) if language.as_str() != tag => {
                    return wrong(&format!(
                        "the language {tag:?} is written {:?}",
                        language.as_str()
                    ));
                }
                Ok(_) => {}
            }
        }
        if !self.purpose.as_deref().is_none_or(is_label) {
            return wrong("a purpose is 1 to 64 printable ASCII characters");
        }
        Ok(())
    }
}

/// The embedded defaults.
impl Default for Config {
    fn default() -> Self {
        #[derive(Deserialize)]
        struct Defaults {
            dialogues: Config,
        }
        let defaults: Defaults = toml::from_str(DEFAULTS).expect("checked by every test");
        defaults.dialogues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_a_language_as_texts_have_it() {
        let check = |language: &str| {
            let language = Some(language.to_owned());
            let rule = RetentionRule {
                language,
                purpose: None,
                days: 1,
            };
            rule.check().map_err(|error| error.to_string())
        };
        for language in ["pt", "pt-BR"] {
            assert_eq!(check(language), Ok(()));
        }
        for (language, written) in [("PT", "\"pt\""), ("por", "\"pt\""), ("pt-br", "\"pt-BR\"")] {
            assert!(check(language).unwrap_err().contains(written), "{language}");
        }
        assert!(check("English").is_err());
    }
}
