//! Every message of the log has its row in `docs/LOGGING.md`.

use std::fs;

use crate::architecture::sources;
use crate::server::repository;

/// The messages of the calls that log from INFO on, each up to what varies or says what to do.
fn messages(source: &str) -> Vec<String> {
    let calls = ["tracing::error!(", "tracing::warn!(", "tracing::info!("];
    let after = calls
        .into_iter()
        .flat_map(|call| source.split(call).skip(1));
    after.filter_map(message).collect()
}

/// The last text of a call, which ends with its statement.
fn message(call: &str) -> Option<String> {
    let mut texts = Vec::new();
    let mut text: Option<String> = None;
    let (mut depth, mut escaped) = (1, false);
    for letter in call.chars() {
        match (&mut text, letter) {
            (Some(open), _) if escaped => {
                escaped = false;
                open.push(letter);
            }
            (Some(_), '\\') => escaped = true,
            (Some(_), '"') => texts.extend(text.take()),
            (Some(open), _) => open.push(letter),
            (None, '"') => text = Some(String::new()),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, _) => {}
        }
        if depth == 0 {
            break;
        }
    }
    let whole = texts.pop()?;
    let fixed = whole.split([';', ':', '{', '(']).next()?.trim_end();
    (!fixed.is_empty()).then(|| fixed.to_owned())
}

#[test]
fn messages_are_found_up_to_what_varies() {
    let source =
        r#"tracing::warn!(%error, limit = f("x"), "a \"b\" c; do d"); tracing::info!("{all}");"#;
    assert_eq!(messages(source), ["a \"b\" c"]);
}

#[test]
fn every_message_has_its_row_in_the_page() {
    let page = fs::read_to_string(repository().join("docs/LOGGING.md")).expect("read");
    let mut missing = Vec::new();
    let mut found = 0;
    for path in sources(&repository().join("crates")) {
        let inside = path.strip_prefix(repository()).expect("inside");
        let is_test = inside
            .iter()
            .any(|part| part == "tests" || part == "benches")
            || inside.ends_with("tests.rs")
            || inside.ends_with("sample.rs");
        if is_test {
            continue;
        }
        let source = fs::read_to_string(&path).expect("read");
        for message in messages(&source) {
            found += 1;
            if !page.contains(&format!("`{message}")) {
                missing.push(format!("{}: {message}", inside.display()));
            }
        }
    }
    assert!(found > 40, "{found}");
    assert!(missing.is_empty(), "docs/LOGGING.md lacks {missing:#?}");
}
