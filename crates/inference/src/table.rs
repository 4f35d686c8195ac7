//! Rows of a table with a header, such as CSV, as records.

use std::collections::HashSet;

use serde_json::{Map, Number, Value, json};

use crate::schema::{Field, Kind, Schema};
use crate::validate::unknown;

/// The columns of a table by what they are to a model.
#[derive(Debug)]
pub struct Columns<'s> {
    columns: Vec<(&'s str, Option<&'s Field>)>,
}

impl<'s> Columns<'s> {
    /// Reads the header of a table.
    ///
    /// # Errors
    /// If a column is no field of the model, two have one name, or one is missing that the model needs.
    pub fn new<'h>(
        schema: &'s Schema,
        header: impl IntoIterator<Item = &'h str>,
    ) -> Result<Self, String> {
        let header: Vec<&'h str> = header.into_iter().collect();
        let fields = schema.features.iter().map(|field| &field.name);
        let names = fields.chain(schema.unused.iter().map(|unused| &unused.name));
        let names: HashSet<&str> = names.map(String::as_str).collect();
        if is_headerless(&header, |name| names.contains(name)) {
            return Err(HEADERLESS.into());
        }
        let mut seen = HashSet::new();
        let column = |name: &'h str| {
            let name = trimmed(name, |name| names.contains(name));
            if !seen.insert(name) {
                return Err(format!("two columns are called \"{name}\""));
            }
            if let Some(field) = schema.features.iter().find(|field| field.name == name) {
                return Ok((field.name.as_str(), Some(field)));
            }
            let unused = schema.unused.iter().find(|unused| unused.name == name);
            let unused = unused.map(|unused| (unused.name.as_str(), None));
            unused.ok_or_else(|| match name {
                _ if is_many_columns(name) => MANY_COLUMNS.into(),
                "" => "a column has no name; pandas writes its index so, unless index=False".into(),
                _ => format!(
                    "column \"{name}\" {}; {}",
                    unknown(schema, name, true),
                    leave_out(name)
                ),
            })
        };
        let columns: Vec<_> = header.into_iter().map(column).collect::<Result<_, _>>()?;
        let is_lacking = |field: &&Field| field.absent().is_none() && !seen.contains(&*field.name);
        // Without a header there are no cells.
        match schema.features.iter().find(is_lacking) {
            Some(field) if !columns.is_empty() => Err(format!(
                "the column \"{}\" is missing, which the model needs",
                field.name
            )),
            _ => Ok(Self { columns }),
        }
    }

    /// One row as the record of a request. A cell that pandas reads as missing is null.
    pub fn record<'c>(&self, cells: impl IntoIterator<Item = &'c str>) -> Value {
        let cells = self.columns.iter().zip(cells);
        let record = cells.map(|((name, field), cell)| {
            let value = field.map_or_else(|| json!(cell), |field| value(field, cell));
            ((*name).to_owned(), value)
        });
        Value::Object(Map::from_iter(record))
    }
}

/// What to do about a field that is none of the model's, such as the one that it predicts.
pub(crate) fn leave_out(name: &str) -> String {
    let name = Value::from(name);
    format!(
        "leave it out, with pandas by df.drop(columns=[{name}]), or have it accepted and not used by \
         unused = [{name}] at the top of model.toml"
    )
}

/// What is said of a table whose columns are not separated by commas, as Excel writes it in many
/// countries.
pub(crate) const MANY_COLUMNS: &str =
    "its columns are separated by semicolons or tabs; separate them by commas, as pandas does";

/// Whether a name is several, which something else than a comma separates.
pub(crate) fn is_many_columns(name: &str) -> bool {
    name.contains([';', '\t'])
}

/// What is said of a table that begins with its first row.
pub(crate) const HEADERLESS: &str = "its first line has only values, so it is a row and no header; put a line with the names of the \
     columns before it, as pandas writes it unless header=False";

/// Whether a header is none: numbers, with truths and signs for nothing among them, that are no names,
/// neither known ones nor those that pandas gives to columns without names.
pub(crate) fn is_headerless(header: &[&str], is_known: impl Fn(&str) -> bool) -> bool {
    let is_value =
        |name: &str| number(name).is_some() || boolean(name).is_some() || MISSING.contains(&name);
    let mut counted = header.iter().enumerate();
    header.iter().all(|name| is_value(name) && !is_known(name))
        && header.iter().any(|name| number(name).is_some())
        && !counted.all(|(n, name)| *name == n.to_string())
}

/// The truth that a cell is to pandas.
pub(crate) fn boolean(cell: &str) -> Option<bool> {
    match cell {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// The name of a column without the blanks around it, unless it is known with them.
pub(crate) fn trimmed(name: &str, is_known: impl Fn(&str) -> bool) -> &str {
    match is_known(name) {
        true => name,
        false => name.trim(),
    }
}

/// What stands for a missing value where no value of that name is known; pandas reads these so too.
pub(crate) const MISSING: &[&str] = &[
    "", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "<NA>",
];

/// The number that a cell is to pandas: beside those of JSON `01`, `+1`, `.5` and `5.`, in blanks.
pub(crate) fn number(cell: &str) -> Option<Number> {
    let cell = cell.trim_matches([' ', '\t']);
    if let Ok(number) = cell.parse() {
        return Some(number);
    }
    match cell.parse::<i64>() {
        Ok(whole) => Some(whole.into()),
        Err(_) => cell.parse().ok().and_then(Number::from_f64),
    }
}

/// A text that is no value of the field stays one, for the reader of records to refuse.
pub(crate) fn value(field: &Field, cell: &str) -> Value {
    match (&field.kind, cell) {
        (_, "") => Value::Null,
        (Kind::Text, _) if field.booleans_are_integers && boolean(cell).is_some() => {
            json!(boolean(cell))
        }
        (Kind::Text, _) => json!(cell),
        (Kind::Category(categories), _)
            if categories.values().iter().any(|known| known == cell) =>
        {
            json!(cell)
        }
        _ if MISSING.contains(&cell) => Value::Null,
        (Kind::Category(_), _) if field.missing.is_none() => json!(cell),
        (Kind::Boolean, _) if boolean(cell).is_some() => json!(boolean(cell)),
        _ => number(cell).map_or_else(|| json!(cell), Value::Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::kitchen;

    #[test]
    fn cells_become_what_the_fields_want() {
        let package = kitchen();
        let header = ["id", "age", "sexo", "income", "active", "province"];
        let columns = Columns::new(package.schema(), header).unwrap();
        let record = columns.record(["7", "56", "H", "", "True", "CORUÑA, A"]);
        let expected = json!({"id": "7", "age": 56, "sexo": "H", "income": null, "active": true,
                              "province": "CORUÑA, A"});
        assert_eq!(record, expected);
        package.parse_line(&record.to_string()).unwrap();
        let record = columns.record(["7", "old", "1", "1e3", "1", "MADRID"]);
        let expected = json!({"id": "7", "age": "old", "sexo": "1", "income": 1e3, "active": 1,
                              "province": "MADRID"});
        assert_eq!(record, expected);
        let record = columns.record(["7", "NA", "NaN", "nan", "<NA>", "None"]);
        let expected = json!({"id": "7", "age": null, "sexo": null, "income": null, "active": null,
                              "province": null});
        assert_eq!(record, expected);
    }

    #[test]
    fn a_cell_is_a_boolean_where_the_model_has_no_such_text() {
        let mut flag = Field {
            integers_are_texts: true,
            booleans_are_integers: true,
            ..Field::new("flag", Kind::Text)
        };
        assert_eq!(value(&flag, "True"), json!(true));
        assert_eq!(value(&flag, "maybe"), json!("maybe"));
        flag.booleans_are_integers = false;
        assert_eq!(value(&flag, "True"), json!("True"));
    }

    #[test]
    fn columns_of_no_field_are_refused_by_name() {
        let package = kitchen();
        for (header, words) in [
            (
                ["age", "sex"],
                "column \"sex\" is not a field of this model; did you mean sexo?",
            ),
            (["age", "target"], "df.drop(columns=[\"target\"])"),
            (
                ["age", "target"],
                "unused = [\"target\"] at the top of model.toml",
            ),
            (["age", "income"], "the column \"sexo\" is missing"),
            (["", "age"], "index=False"),
            (["age", "age"], "two columns are called \"age\""),
            (["age;sexo;income", ""], "separate them by commas"),
        ] {
            let error = Columns::new(package.schema(), header).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
