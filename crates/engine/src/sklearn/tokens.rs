//! From a text to its terms, as the vectorizers of scikit-learn find them.

use std::collections::HashSet;
use std::ops::Range;

use fancy_regex::Regex;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{canonical_combining_class, is_combining_mark};

use crate::document::{Fault, shorten};
use crate::pickle::View;

/// The words that `stop_words="english"` names: the list of the Glasgow Information Retrieval Group, as the library
/// has it.
const ENGLISH: &str = include_str!("stop_words.txt");

/// What Python's `\w` stands for; Rust's has marks too, and no numbers but digits.
const WORD: &str = r"\p{L}\p{N}_";
/// What Python's `\s` stands for beside white space.
const SPACE: &str = r"\s\x1c-\x1f";

/// The longest terms, in words or characters.
const TERM_MAX: i64 = 64;

/// How a text becomes terms.
#[derive(Debug)]
pub(super) struct Analyzer {
    is_lowered: bool,
    accents: Accents,
    unit: Unit,
    /// From how many words or characters a term consists.
    sizes: Range<usize>,
}

#[derive(Debug)]
enum Accents {
    Kept,
    /// Decomposed, and its marks left out.
    Unicode,
    /// Decomposed, and all but ASCII left out.
    Ascii,
}

#[derive(Debug)]
enum Unit {
    Words(Tokens, HashSet<String>),
    Characters,
    /// Characters of each word, with a space before and behind it.
    WithinWords,
}

#[derive(Debug)]
enum Tokens {
    /// All runs of word characters of at least this length.
    Runs(usize),
    Pattern(Box<Regex>),
}

/// Python's `\w`: what Rust has beyond letters and numbers are marks, and letters in circles and squares.
fn is_word(character: char) -> bool {
    let is_beyond = |character: char| {
        is_combining_mark(character)
            || matches!(character, '\u{24B6}'..='\u{24E9}' | '\u{1F130}'..='\u{1F149}')
            || matches!(character, '\u{1F150}'..='\u{1F169}' | '\u{1F170}'..='\u{1F189}')
    };
    match character.is_ascii() {
        true => character == '_' || character.is_ascii_alphanumeric(),
        false => character.is_alphanumeric() && !is_beyond(character),
    }
}

fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

impl Analyzer {
    pub(super) fn read(view: View<'_, '_>) -> Result<Self, Fault> {
        if view.text("input")? != "content" {
            return Err(Fault::new("`input`: only \"content\" is supported"));
        }
        for name in ["preprocessor", "tokenizer"] {
            let value = view.required(name)?;
            if !value.is_none() {
                return Err(value
                    .expected("none, since code of your own is not run")
                    .inside(format_args!("`{name}`")));
            }
        }
        let accents = view.required("strip_accents")?;
        let accents = match accents.as_text() {
            None if accents.is_none() => Accents::Kept,
            Some("unicode") => Accents::Unicode,
            Some("ascii") => Accents::Ascii,
            _ => return Err(accents.expected("none, \"unicode\" or \"ascii\" as `strip_accents`")),
        };
        let sizes = view.list("ngram_range")?;
        let sizes: Vec<i64> = sizes.iter().filter_map(|size| size.as_integer()).collect();
        let [first @ 1..=TERM_MAX, last @ 1..=TERM_MAX] = sizes[..] else {
            return Err(Fault(format!(
                "`ngram_range`: expected two numbers from 1 to {TERM_MAX}"
            )));
        };
        let analyzer = view.required("analyzer")?;
        let unit = match analyzer.as_text() {
            Some("word") => Unit::Words(Tokens::read(view)?, stop_words(view)?),
            Some("char") => Unit::Characters,
            Some("char_wb") => Unit::WithinWords,
            _ => return Err(analyzer.expected("\"word\", \"char\" or \"char_wb\" as `analyzer`")),
        };
        Ok(Self {
            is_lowered: view.boolean("lowercase")?,
            accents,
            unit,
            sizes: first as usize..last as usize + 1,
        })
    }

    /// Calls with each term, as often as it is there.
    pub(super) fn terms(&self, text: &str, mut call: impl FnMut(&str)) -> Result<(), String> {
        let text = self.prepared(text);
        match &self.unit {
            Unit::Words(tokens, stops) => {
                let mut words = tokens.of(&text)?;
                words.retain(|word| !stops.contains(*word));
                let mut term = String::new();
                for size in self.sizes.clone() {
                    for words in words.windows(size) {
                        term.clear();
                        for (place, word) in words.iter().enumerate() {
                            term.push_str(if place == 0 { "" } else { " " });
                            term.push_str(word);
                        }
                        call(&term);
                    }
                }
            }
            Unit::Characters => {
                let text = single_spaced(&text);
                let places = places(&text);
                for size in self.sizes.clone() {
                    for window in places.windows(size + 1) {
                        call(&text[window[0]..window[size]]);
                    }
                }
            }
            Unit::WithinWords => {
                for word in text.split(is_space).filter(|word| !word.is_empty()) {
                    let word = format!(" {word} ");
                    let places = places(&word);
                    for size in self.sizes.clone() {
                        if places.len() <= size + 1 {
                            // A short word counts once, whatever the sizes are.
                            call(&word);
                            break;
                        }
                        for window in places.windows(size + 1) {
                            call(&word[window[0]..window[size]]);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn prepared(&self, text: &str) -> String {
        let text = match self.is_lowered {
            true => text.to_lowercase(),
            false => text.to_owned(),
        };
        match self.accents {
            Accents::Kept => text,
            _ if text.is_ascii() => text,
            Accents::Unicode => {
                let characters = text.nfkd();
                characters
                    .filter(|character| canonical_combining_class(*character) == 0)
                    .collect()
            }
            Accents::Ascii => text.nfkd().filter(char::is_ascii).collect(),
        }
    }
}

/// Where the characters begin, and the end.
fn places(text: &str) -> Vec<usize> {
    let places = text.char_indices().map(|(place, _)| place);
    places.chain([text.len()]).collect()
}

/// With a space in place of each run of two and more.
fn single_spaced(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(is_space) {
        spaced.push_str(&rest[..begin]);
        let after = rest[begin..].trim_start_matches(is_space);
        let run = &rest[begin..rest.len() - after.len()];
        spaced.push_str(if run.chars().count() == 1 { run } else { " " });
        rest = after;
    }
    spaced + rest
}

fn stop_words(view: View<'_, '_>) -> Result<HashSet<String>, Fault> {
    let words = view.required("stop_words")?;
    if words.is_none() {
        return Ok(HashSet::new());
    }
    if words.as_text() == Some("english") {
        return Ok(ENGLISH.split_whitespace().map(str::to_owned).collect());
    }
    let items = words.as_items();
    let words = items.and_then(|items| {
        let texts = items.iter().map(|item| item.as_text().map(str::to_owned));
        texts.collect()
    });
    words.ok_or_else(|| Fault::new("`stop_words`: expected none, \"english\" or a list of texts"))
}

impl Tokens {
    fn read(view: View<'_, '_>) -> Result<Self, Fault> {
        let pattern = view.text("token_pattern")?;
        if let Some(length) = run_length(pattern) {
            return Ok(Self::Runs(length));
        }
        let fault =
            |reason: String| Fault(format!("`token_pattern`: `{}` {reason}", shorten(pattern)));
        let translated = translate(pattern).map_err(fault)?;
        let regex = Regex::new(&translated);
        let regex = regex.map_err(|error| fault(format!("is not supported: {error}")))?;
        match regex.captures_len() {
            0..=2 => Ok(Self::Pattern(Box::new(regex))),
            _ => Err(fault("has more than one group".into())),
        }
    }

    /// The tokens of a text, or why there are none.
    fn of<'t>(&self, text: &'t str) -> Result<Vec<&'t str>, String> {
        match self {
            Self::Runs(length) => {
                let runs = text.split(|character| !is_word(character));
                let is_long = |run: &&str| run.chars().nth(length - 1).is_some();
                Ok(runs.filter(is_long).collect())
            }
            Self::Pattern(regex) => {
                let group = regex.captures_len() - 1;
                let found = regex.captures_iter(text).map(|captures| {
                    captures.map(|captures| captures.get(group).map_or("", |found| found.as_str()))
                });
                let found: Result<Vec<_>, _> = found.collect();
                found.map_err(|_| "takes too long to be divided by the token pattern".into())
            }
        }
    }
}

/// The least length of runs of word characters, if a pattern stands for all of these, as the default does.
fn run_length(pattern: &str) -> Option<usize> {
    let pattern = pattern.strip_prefix("(?u)").unwrap_or(pattern);
    let pattern = pattern.strip_prefix(r"\b").unwrap_or(pattern);
    let pattern = pattern.strip_suffix(r"\b").unwrap_or(pattern);
    if let Some(least) = pattern
        .strip_prefix(r"\w{")
        .and_then(|p| p.strip_suffix(",}"))
    {
        return least.parse().ok().filter(|least| (1..=64).contains(least));
    }
    let words = pattern.strip_suffix('+')?;
    let count = words.len() / 2;
    (count > 0 && words == r"\w".repeat(count)).then_some(count)
}

/// A pattern of Python as one of Rust's that matches the same, or why there is none.
fn translate(pattern: &str) -> Result<String, String> {
    let pattern = pattern.strip_prefix("(?u)").unwrap_or(pattern);
    let mut made = String::new();
    let mut characters = pattern.chars().peekable();
    let (mut in_class, mut before) = (false, ' ');
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let escaped = characters.next().ok_or("ends with a backslash")?;
                made.push_str(&translate_escape(escaped, in_class)?);
            }
            '[' if in_class => made.push_str(r"\["),
            '&' | '~' if in_class => made.extend(['\\', character]),
            '-' if in_class && before == '-' => return Err("has `--` in a class".into()),
            '[' => {
                in_class = true;
                made.push('[');
                if characters.next_if_eq(&'^').is_some() {
                    made.push('^');
                }
                if characters.next_if_eq(&']').is_some() {
                    made.push_str(r"\]");
                }
            }
            ']' if in_class => {
                in_class = false;
                made.push(']');
            }
            '$' if !in_class => return Err("has `$`, which is not supported".into()),
            '(' if !in_class && characters.peek() == Some(&'?') => {
                let rest: String = characters.clone().skip(1).take(2).collect();
                match rest.chars().next() {
                    Some(':' | '=' | '!') => made.push('('),
                    Some('<') if rest.ends_with(['=', '!']) => made.push('('),
                    _ => return Err(format!("has `(?{rest}`, which is not supported")),
                }
            }
            other => made.push(other),
        }
        before = character;
    }
    Ok(made)
}

fn translate_escape(escaped: char, in_class: bool) -> Result<String, String> {
    Ok(match (escaped, in_class) {
        ('w', true) => WORD.into(),
        ('s', true) => SPACE.into(),
        ('w', false) => format!("[{WORD}]"),
        ('s', false) => format!("[{SPACE}]"),
        ('W', _) => format!("[^{WORD}]"),
        ('S', _) => format!("[^{SPACE}]"),
        ('d' | 'D', _) => format!("\\{escaped}"),
        ('b', false) => format!("(?:(?<=[{WORD}])(?![{WORD}])|(?<![{WORD}])(?=[{WORD}]))"),
        ('B', false) => format!("(?:(?<=[{WORD}])(?=[{WORD}])|(?<![{WORD}])(?![{WORD}]))"),
        ('n' | 't' | 'r', _) => format!("\\{escaped}"),
        (other, _) if other.is_ascii_punctuation() => format!("\\{other}"),
        (other, _) => return Err(format!("has `\\{other}`, which is not supported")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stand_for_patterns_that_mean_them() {
        for (pattern, length) in [
            (r"(?u)\b\w\w+\b", Some(2)),
            (r"\b\w+\b", Some(1)),
            (r"\w+", Some(1)),
            (r"\w{3,}", Some(3)),
            (r"\w", None),
            (r"[a-z]+", None),
        ] {
            assert_eq!(run_length(pattern), length, "{pattern}");
        }
    }

    #[test]
    fn patterns_find_what_python_finds() {
        for (pattern, text, tokens) in [
            (
                r"(?u)\b[a-zA-Z]{2,}\b",
                "ab c2 cd-ef cafe\u{301}",
                vec!["ab", "cd", "ef", "cafe"],
            ),
            (r"#(\w+)", "#one two #tw\u{bd}o", vec!["one", "tw\u{bd}o"]),
            (r"\S+", "a\u{1c}b  c", vec!["a", "b", "c"]),
            (r"[[&]+", "[&[ a", vec!["[&["]),
        ] {
            let regex = Regex::new(&translate(pattern).expect(pattern)).expect(pattern);
            let found = Tokens::Pattern(Box::new(regex)).of(text);
            assert_eq!(found, Ok(tokens), "{pattern}");
        }
        for pattern in [r"(?i)a", r"a$", r"\Aa", r"a\", "(?P<a>b)"] {
            assert!(translate(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn spaces_become_one() {
        assert_eq!(single_spaced(" a  b\tc\n\nd "), " a b\tc d ");
    }
}
