//! Which features are categorical, and what their categories are called.

use super::text::{Rest, number};
use crate::document::{Fault, Value, named, parse_json};
use crate::signature::FeatureKind;

/// The kinds of the features, given what the head of the file says of the values of each: `[least:greatest]` of
/// numbers, codes with `:` between them of a categorical one, or `none`.
pub(super) fn kinds(infos: &[&str], rest: &Rest<'_>) -> Result<Vec<FeatureKind>, Fault> {
    let mut kinds = vec![FeatureKind::Number; infos.len()];
    let stated = stated(rest.categorical_feature);
    let is_coded = |index: usize| !infos[index].starts_with('[') && infos[index] != "none";
    let is_categorical = |index: &usize| stated.binary_search(index).is_ok() || is_coded(*index);
    let categorical: Vec<usize> = (0..infos.len()).filter(is_categorical).collect();
    for index in &categorical {
        kinds[*index] = FeatureKind::Code;
    }
    let Some(lists) = rest.pandas_categorical else {
        return Ok(kinds);
    };
    let lists = read(lists).map_err(named("pandas_categorical"))?;
    let lengths: Vec<usize> = lists.iter().map(|list| list.length).collect();
    let owners = owners(&categorical, infos, &lengths).unwrap_or_default();
    for (index, list) in owners.into_iter().zip(lists) {
        kinds[index] = list.kind;
    }
    Ok(kinds)
}

/// The numbers of the features that the parameters name, ascending; names may stand there too, which say
/// nothing here.
fn stated(text: &str) -> Vec<usize> {
    let numbers: Option<Vec<usize>> = text.split(',').map(|number| number.parse().ok()).collect();
    let mut numbers = numbers.unwrap_or_default();
    numbers.sort_unstable();
    numbers
}

/// Whose the lists of categories are, which the file has in the order of the columns, but without their
/// names. There may be fewer than categorical features, since whole numbers may be categories too: then
/// it is known only if the lists fit in one way.
fn owners(categorical: &[usize], infos: &[&str], lengths: &[usize]) -> Option<Vec<usize>> {
    let mut free = categorical.iter().copied();
    let mut take = |length: &usize| free.find(|index| fits(infos[*index], *length));
    let first: Option<Vec<usize>> = lengths.iter().map(&mut take).collect();
    let mut free = categorical.iter().copied().rev();
    let mut take = |length: &usize| free.find(|index| fits(infos[*index], *length));
    let last: Option<Vec<usize>> = lengths.iter().rev().map(&mut take).collect();
    let (first, last) = (first?, last?);
    first.iter().eq(last.iter().rev()).then_some(first)
}

/// Whether all codes that training had are those of a list.
fn fits(info: &str, categories: usize) -> bool {
    let codes = info.split(':').map(number::<i64>);
    info == "none" || codes.flatten().all(|code| code < categories as i64)
}

/// The categories of one column.
struct List {
    length: usize,
    kind: FeatureKind,
}

fn read(json: &str) -> Result<Vec<List>, Fault> {
    match parse_json(json.as_bytes())? {
        Value::Null => Ok(Vec::new()),
        lists => lists.as_list()?.iter().map(read_list).collect(),
    }
}

/// The codes of `false` and `true` are those of any column of booleans.
fn read_list(list: &Value<'_>) -> Result<List, Fault> {
    if matches!(list, Value::List(list) if matches!(list[..], [Value::Bool(false), Value::Bool(true)]))
    {
        return Ok(List {
            length: 2,
            kind: FeatureKind::Boolean,
        });
    }
    let names = names(list)?;
    Ok(List {
        length: names.len(),
        kind: match is_distinct(&names) {
            true => FeatureKind::Category(names),
            false => FeatureKind::Code,
        },
    })
}

/// Texts, and what is none as it is written in JSON.
fn names(list: &Value<'_>) -> Result<Vec<String>, Fault> {
    if let Value::Numbers(numbers) = list {
        return numbers.as_written();
    }
    let name = |value: &Value<'_>| match value {
        Value::Text(text) => Ok(text.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Numeral(numeral) => Ok((*numeral).to_owned()),
        other => Err(other.expected("a text, a number or a boolean")),
    };
    list.as_list()?.iter().map(name).collect()
}

/// Whether each name is that of one category: 1 and "1" are written alike.
fn is_distinct(names: &[String]) -> bool {
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    sorted.array_windows().all(|[a, b]| a != b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds_of(infos: &[&str], categorical_feature: &str, json: &str) -> Vec<FeatureKind> {
        let rest = Rest {
            categorical_feature,
            pandas_categorical: Some(json),
            ..Rest::default()
        };
        kinds(infos, &rest).unwrap()
    }

    #[test]
    fn names_are_given_only_where_it_is_clear_whose_they_are() {
        use FeatureKind::{Boolean, Category, Code, Number};
        let names =
            |names: &[&str]| Category(names.iter().map(|name| (*name).to_owned()).collect());
        let ab = names(&["a", "b"]);
        let two = r#"[["a", "b"], [false, true]]"#;
        // The last had one category in training.
        let kinds = kinds_of(&["-1:1:0", "[0:7]", "none"], "0,2", two);
        assert_eq!(kinds, [ab.clone(), Number, Boolean]);
        // A code that no list has.
        let kinds = kinds_of(&["0:1", "0:1:7", "1:0"], "", two);
        assert_eq!(kinds, [ab.clone(), Code, Boolean]);
        let kinds = kinds_of(&["0:1", "0:1", "1:0"], "", two);
        assert_eq!(kinds, [Code, Code, Code]);
        let kinds = kinds_of(&["0:1", "[0:1]"], "name:x", two);
        assert_eq!(kinds, [Code, Number]);
        // Names that two categories share.
        let kinds = kinds_of(&["0:1", "0:1"], "0,1,9", r#"[["a", "b"], [1, "1"]]"#);
        assert_eq!(kinds, [ab, Code]);
        let kinds = kinds_of(&["0:1", "0"], "", r#"[["false", "true"], [true]]"#);
        assert_eq!(kinds, [names(&["false", "true"]), names(&["true"])]);
        assert_eq!(kinds_of(&["[0:1]"], "", "null"), [Number]);
    }
}
