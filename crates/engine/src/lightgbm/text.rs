//! A file as sections of lines `key=value`, before anything is known about their meaning.
//!
//! Sections are read one at a time and borrow the file's text; their numbers stay text until a reader
//! asks for them, and none of the counts in the file is believed before what is counted has been read.

use std::str::{FromStr, Lines};

use crate::document::{CUT_OFF, Fault, named, shorten};

/// How many lines the head of a file, or a tree, may have; the library writes at most 19.
const LINES_MAX: usize = 64;

const TREE: &str = "Tree=";
const TREES_END: &str = "end of trees";
const PARAMETERS: &str = "parameters:";
const PARAMETERS_END: &str = "end of parameters";
const PARSER: &str = "parser:";
const PARSER_END: &str = "end of parser";
const PANDAS: &str = "pandas_categorical:";

/// Lines with a name and a value; a line without `=` is a name.
#[derive(Debug, Default)]
pub(super) struct Section<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Section<'a> {
    fn add(&mut self, line: &'a str) -> Result<(), Fault> {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        if self.get(name).is_some() {
            return Err(Fault(format!("`{}` is there twice", shorten(name))));
        }
        if self.0.len() == LINES_MAX {
            return Err(Fault(format!("more than {LINES_MAX} lines")));
        }
        self.0.push((name, value));
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let entry = self.0.iter().find(|(key, _)| *key == name);
        entry.map(|(_, value)| *value)
    }

    pub(super) fn required(&self, name: &str) -> Result<&'a str, Fault> {
        let missing = || Fault(format!("`{name}` is missing"));
        self.get(name).ok_or_else(missing)
    }

    /// A whole number from `least` to `most`.
    pub(super) fn count(&self, name: &str, least: usize, most: usize) -> Result<usize, Fault> {
        let value: i64 = number(self.required(name)?).map_err(named(name))?;
        let count = usize::try_from(value).ok();
        let count = count.filter(|count| (least..=most).contains(count));
        count.ok_or_else(|| Fault(format!("`{name}`: {value} is outside {least}..={most}")))
    }

    /// As many numbers as there are `of` something.
    pub(super) fn numbers<T: FromStr>(
        &self,
        name: &str,
        count: usize,
        of: &str,
    ) -> Result<Vec<T>, Fault> {
        let values = self.required(name)?.split_ascii_whitespace();
        let values: Vec<T> = values
            .map(number)
            .collect::<Result<_, _>>()
            .map_err(named(name))?;
        match values.len() == count {
            true => Ok(values),
            false => Err(Fault(format!(
                "`{name}`: {} values for {count} {of}",
                values.len()
            ))),
        }
    }
}

/// A number as Rust reads it, which rounds correctly, as the library does.
pub(super) fn number<T: FromStr>(text: &str) -> Result<T, Fault> {
    let wrong = |_| Fault(format!("`{}` is not a number of its kind", shorten(text)));
    text.parse().map_err(wrong)
}

/// A file that is being read from its beginning to its end.
pub(super) struct Reader<'a> {
    lines: Lines<'a>,
    /// The line that began the next section.
    ahead: Option<&'a str>,
}

impl<'a> Reader<'a> {
    /// The head of the file, and the reader of what follows.
    pub(super) fn new(text: &'a str) -> Result<(Section<'a>, Self), Fault> {
        let mut lines = text.lines();
        if lines.next() != Some("tree") {
            return Err(Fault::new("line 1: expected `tree`"));
        }
        let mut reader = Self { lines, ahead: None };
        Ok((reader.section()?, reader))
    }

    /// Lines up to the next tree or the end of all.
    fn section(&mut self) -> Result<Section<'a>, Fault> {
        let mut section = Section::default();
        loop {
            let line = self.lines.next().ok_or_else(|| Fault::new(CUT_OFF))?;
            if line.starts_with(TREE) || line == TREES_END {
                self.ahead = Some(line);
                return Ok(section);
            }
            if !line.is_empty() {
                section.add(line)?;
            }
        }
    }

    /// The next tree, if there is one.
    pub(super) fn tree(&mut self, index: usize) -> Option<Result<Section<'a>, Fault>> {
        let id = self.ahead.take()?.strip_prefix(TREE)?;
        Some(match id.parse() == Ok(index) {
            true => self.section(),
            false => Err(Fault(format!("`Tree={}` in its place", shorten(id)))),
        })
    }

    /// What follows the trees.
    pub(super) fn rest(mut self) -> Result<Rest<'a>, Fault> {
        let mut rest = Rest::default();
        // Before the parameters there is only what people look at: how often each feature was used.
        self.until(PARAMETERS, |_| {})?;
        self.until(PARAMETERS_END, |line| {
            let line = line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'));
            match line.and_then(|line| line.split_once(": ")) {
                Some(("boosting", value)) => rest.boosting = value,
                Some(("categorical_feature", value)) => rest.categorical_feature = value,
                _ => {}
            }
        })?;
        while let Some(line) = self.lines.next() {
            if line == PARSER {
                self.until(PARSER_END, |_| {})?;
            } else if let Some(categories) = line.strip_prefix(PANDAS) {
                rest.pandas_categorical = Some(categories);
            } else if !line.is_empty() {
                return Err(Fault(format!(
                    "`{}` after `{PARAMETERS_END}`; {CUT_OFF}",
                    shorten(line)
                )));
            }
        }
        Ok(rest)
    }

    fn until(&mut self, end: &str, mut each: impl FnMut(&'a str)) -> Result<(), Fault> {
        loop {
            match self.lines.next() {
                None => return Err(Fault(format!("`{end}` is missing: {CUT_OFF}"))),
                Some(line) if line == end => return Ok(()),
                Some(line) => each(line),
            }
        }
    }
}

/// What the file says after the trees.
#[derive(Debug, Default)]
pub(super) struct Rest<'a> {
    /// How the trees were boosted: `gbdt`, `rf`, `dart` or `goss`.
    pub(super) boosting: &'a str,
    /// Numbers of the features that are categorical, with commas.
    pub(super) categorical_feature: &'a str,
    /// JSON: the categories of each categorical column of the pandas frame.
    pub(super) pandas_categorical: Option<&'a str>,
}
