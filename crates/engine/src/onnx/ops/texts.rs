//! Operators of texts.

use std::collections::HashMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::{Run, input};
use crate::document::Fault;
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Data, Tensor, bounded};

/// Memory that a compiled expression may take, in bytes.
const EXPRESSION_BYTES_MAX: usize = 1 << 20;

/// Words of an n-gram, at most.
const GRAM_MAX: usize = 64;

pub(super) fn normalizer(node: &Node<'_>) -> Result<Run, Fault> {
    let change: fn(&str) -> Arc<str> = match node.text("case_change_action")? {
        None | Some("NONE") => |text| text.into(),
        Some("LOWER") => |text| text.to_lowercase().into(),
        Some("UPPER") => |text| text.to_uppercase().into(),
        Some(_) => return Err(Fault::new("`case_change_action` is none that is known")),
    };
    let is_case_sensitive = node.integer("is_case_sensitive").unwrap_or(0) != 0;
    let plain = move |text: &str| match is_case_sensitive {
        true => text.to_owned(),
        false => text.to_lowercase(),
    };
    let stopwords: std::collections::HashSet<String> = node
        .texts("stopwords")?
        .iter()
        .map(|text| plain(text))
        .collect();
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let texts = given.as_texts()?.iter();
        let kept = texts.filter(|text| stopwords.is_empty() || !stopwords.contains(&plain(text)));
        let mut made: Vec<Arc<str>> = kept.map(|text| change(text)).collect();
        let mut shape = given.shape.clone();
        if !stopwords.is_empty() {
            let ([_] | [1, _]) = shape[..] else {
                return Err(Fault::new("takes words from one row only"));
            };
            if made.is_empty() {
                made.push("".into());
            }
            *shape.last_mut().expect("there is one") = made.len();
        }
        Ok(vec![Tensor::new(shape, Data::Text(made))])
    }))
}

/// How a text becomes words.
#[derive(Debug)]
enum Cut {
    Expression(Regex),
    Separators(Regex),
    Characters,
}

impl Cut {
    fn read(node: &Node<'_>) -> Result<Self, Fault> {
        let separators = node.texts("separators")?;
        let expression = |text: &str| {
            let built = RegexBuilder::new(text)
                .size_limit(EXPRESSION_BYTES_MAX)
                .build();
            built.map_err(|_| Fault::new("an expression that is not supported, or too large"))
        };
        match node.text("tokenexp")? {
            Some(own) if separators.is_empty() => expression(own).map(Self::Expression),
            None if separators.len() == 1 && separators[0].is_empty() => Ok(Self::Characters),
            None if !separators.is_empty() && separators.iter().all(|text| !text.is_empty()) => {
                let escaped: Vec<String> =
                    separators.iter().map(|text| regex::escape(text)).collect();
                expression(&escaped.join("|")).map(Self::Separators)
            }
            _ => Err(Fault::new("needs either `separators` or `tokenexp`")),
        }
    }

    fn words<'t>(&self, text: &'t str) -> Vec<&'t str> {
        match self {
            Self::Expression(expression) => expression
                .find_iter(text)
                .map(|found| found.as_str())
                .collect(),
            Self::Separators(separators) => separators.split(text).collect(),
            Self::Characters => text
                .char_indices()
                .map(|(at, own)| &text[at..at + own.len_utf8()])
                .collect(),
        }
    }
}

pub(super) fn tokenizer(node: &Node<'_>) -> Result<Run, Fault> {
    let cut = Cut::read(node)?;
    let padding: Arc<str> = node.text("pad_value")?.unwrap_or_default().into();
    let marks = node.integer("mark").unwrap_or(0) != 0;
    let least = usize::try_from(node.integer("mincharnum").unwrap_or(1).max(1)).unwrap_or(1);
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        if given.shape.is_empty() || given.shape.len() > 2 {
            return Err(Fault(format!("texts of the shape {:?}", given.shape)));
        }
        let texts = given.as_texts()?;
        context.spend(texts.iter().map(|text| text.len() + 1).sum())?;
        let words = |text: &Arc<str>| {
            let mut words = cut.words(text);
            words.retain(|word| !word.is_empty() && word.chars().count() >= least);
            words.into_iter().map(Arc::from).collect()
        };
        let rows: Vec<Vec<Arc<str>>> = texts.iter().map(words).collect();
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = if longest > 0 && marks {
            longest + 2
        } else {
            longest
        };
        let mut shape = given.shape.clone();
        shape.push(width);
        context.spend(bounded(&shape)?)?;
        let mut made = Vec::with_capacity(rows.len() * width);
        let mark = |text: &str| (longest > 0 && marks).then(|| Arc::from(text));
        for row in rows {
            let missing = longest - row.len();
            made.extend(mark("\u{2}"));
            made.extend(row);
            made.extend(std::iter::repeat_n(padding.clone(), missing));
            made.extend(mark("\u{3}"));
        }
        Ok(vec![Tensor::new(shape, Data::Text(made))])
    }))
}

/// Words, or numbers that stand for them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Word {
    Text(Arc<str>),
    Number(i64),
}

fn words(data: &Data) -> Result<Vec<Word>, Fault> {
    Ok(match data {
        Data::Text(texts) => texts.iter().cloned().map(Word::Text).collect(),
        Data::Long(numbers) => numbers.iter().copied().map(Word::Number).collect(),
        Data::Int(numbers) => numbers
            .iter()
            .map(|number| Word::Number(i64::from(*number)))
            .collect(),
        other => {
            return Err(Fault(format!(
                "values of the type {} are not taken",
                other.element()
            )));
        }
    })
}

/// The number of each n-gram of a vocabulary, and the column of each number.
type Vocabulary = (HashMap<Vec<Word>, usize>, Vec<usize>);

fn vocabulary(node: &Node<'_>) -> Result<Vocabulary, Fault> {
    let texts = node.texts("pool_strings")?;
    let pool = match texts.is_empty() {
        true => words(&Data::Long(node.integers("pool_int64s").to_vec()))?,
        false => words(&Data::Text(texts))?,
    };
    let place = |number: &i64| usize::try_from(*number).map_err(|_| Fault::new("a place below 0"));
    let counts: Result<Vec<usize>, Fault> =
        node.integers("ngram_counts").iter().map(place).collect();
    let columns: Result<Vec<usize>, Fault> =
        node.integers("ngram_indexes").iter().map(place).collect();
    let (counts, columns) = (counts?, columns?);
    if counts.len() > GRAM_MAX {
        return Err(Fault(format!("n-grams of more than {GRAM_MAX} words")));
    }
    let mut grams = HashMap::new();
    let mut number = 0;
    for (index, start) in counts.iter().enumerate() {
        let end = counts.get(index + 1).copied().unwrap_or(pool.len());
        let own = pool
            .get(*start..end)
            .ok_or_else(|| Fault::new("`ngram_counts` beyond the words"))?;
        let of_length = own.chunks_exact(index + 1);
        if !of_length.remainder().is_empty() {
            return Err(Fault::new("`ngram_counts` within an n-gram"));
        }
        for gram in of_length {
            grams.insert(gram.to_vec(), number);
            number += 1;
        }
    }
    match columns.len() == number && number > 0 {
        true => Ok((grams, columns)),
        false => Err(Fault(format!(
            "`ngram_indexes`: {} for {number} n-grams",
            columns.len()
        ))),
    }
}

pub(super) fn tf_idf(node: &Node<'_>) -> Result<Run, Fault> {
    let (grams, columns) = vocabulary(node)?;
    let width = columns
        .iter()
        .max()
        .map_or(0, |last| last.saturating_add(1));
    bounded(&[width])?;
    let mut weights = node.floats("weights").to_vec();
    if weights.is_empty() {
        weights = vec![1.0; columns.len()];
    }
    if weights.len() != columns.len() {
        return Err(Fault(format!(
            "`weights`: {} for {} n-grams",
            weights.len(),
            columns.len()
        )));
    }
    let mode: fn(f32, f32) -> f32 = match node.text("mode")? {
        Some("TF") => |count, _| count,
        Some("IDF") => |_, weight| weight,
        Some("TFIDF") => |count, weight| count * weight,
        _ => return Err(Fault::new("`mode` is none that is known")),
    };
    let number = |name: &str| {
        node.integer(name)
            .and_then(|number| usize::try_from(number).ok())
    };
    let lengths = number("min_gram_length").zip(number("max_gram_length"));
    let (least, most) = lengths
        .filter(|(least, most)| {
            (1..=GRAM_MAX).contains(least) && (*least..=GRAM_MAX).contains(most)
        })
        .ok_or_else(|| Fault::new("`min_gram_length` and `max_gram_length` do not fit"))?;
    let skips = number("max_skip_count").unwrap_or(0).min(GRAM_MAX);
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        let (rows, length) = given.as_rows()?;
        let values = words(&given.data)?;
        let shape = match given.shape.len() {
            1 => vec![width],
            _ => vec![rows, width],
        };
        context.spend(bounded(&shape)?)?;
        context.spend(values.len().saturating_mul(most * most * (skips + 1)))?;
        let mut made = vec![0f32; rows * width];
        let mut gram = Vec::with_capacity(most);
        for row in 0..rows {
            let (words, out) = (
                &values[row * length..][..length],
                &mut made[row * width..][..width],
            );
            let mut counts: HashMap<usize, f32> = HashMap::new();
            for size in least..=most {
                // One word has nothing to skip.
                for step in 1..=if size == 1 { 1 } else { skips + 1 } {
                    for start in 0..length.saturating_sub((size - 1) * step) {
                        gram.clear();
                        gram.extend(words[start..].iter().step_by(step).take(size).cloned());
                        if let Some(number) = grams.get(&gram) {
                            *counts.entry(*number).or_default() += 1.0;
                        }
                    }
                }
            }
            for (number, count) in counts {
                out[columns[number]] += mode(count, weights[number]);
            }
        }
        Ok(vec![Tensor::floats(shape, made)])
    }))
}
