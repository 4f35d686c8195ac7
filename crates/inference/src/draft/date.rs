//! Texts that are dates, which a model takes as some number that only its author knows.

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

/// Whether a text is a date as people and programs write it: `2024-01-31`, with a time behind it or not,
/// `31.1.2024`, `1/31/24`, `2024-01`, `31 Jan 2024`, `January 31, 2024`.
pub(super) fn is_date(text: &str) -> bool {
    let Some(date) = without_time(text.trim()) else {
        return false;
    };
    let parts = date
        .split(['-', '/', '.', ' ', ','])
        .filter(|part| !part.is_empty());
    let parts: Option<Vec<Part>> = parts.map(Part::of).collect();
    use Part::{Month, Name, Number, Year};
    match parts.as_deref() {
        Some([Year, Month | Name, Month | Number])
        | Some([Month | Number, Month | Name, Year])
        | Some([Month | Name, Month | Number, Year])
        | Some([Year, Month | Name])
        | Some([Month | Name, Year]) => true,
        // Years without their century; with other signs that is what versions and sizes look like.
        Some([Month | Number, Month, Month | Number] | [Month, Number, Month | Number]) => {
            date.contains('/')
        }
        Some([Month | Number, Name, Month | Number]) => true,
        _ => false,
    }
}

/// What stands before the time of a day, which has a colon; none where it is only that.
fn without_time(text: &str) -> Option<&str> {
    match text.split_once(':') {
        None => Some(text),
        Some((before, _)) => before.rsplit_once(['T', ' ']).map(|(date, _)| date),
    }
}

/// What a part of a date may be.
enum Part {
    Year,
    /// A month by its name.
    Name,
    /// A number that a month may have; days may have it too.
    Month,
    /// Another number of up to two digits: a day, or a year without its century.
    Number,
}

impl Part {
    fn of(text: &str) -> Option<Self> {
        let is_month = |name: &str| MONTHS.contains(&&*name.to_ascii_lowercase());
        match (text.len(), text.parse::<u16>()) {
            (4, Ok(1000..3000)) => Some(Self::Year),
            (1 | 2, Ok(1..=12)) => Some(Self::Month),
            (1 | 2, Ok(_)) => Some(Self::Number),
            (3.., Err(_)) if text.get(..3).is_some_and(is_month) => Some(Self::Name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_told_from_other_texts() {
        for date in [
            "2024-01-31",
            "2024-01-31T10:00:00.5Z",
            "2024-01-31 10:00:00+01:00",
            " 1999/12/31 ",
            "31.1.2024",
            "31/01/2024",
            "1/31/2024",
            "1/31/24",
            "24/1/31 9:05 PM",
            "2024-01",
            "01/2024",
            "31 Jan 2024",
            "31-JAN-24",
            "January 31, 2024",
            "Sep 2024",
        ] {
            assert!(is_date(date), "{date}");
        }
        for other in [
            "",
            "-",
            "Vigo",
            "1.2.3",
            "10.0.0.1",
            "2024",
            "20240131",
            "18-25",
            "3-4",
            "12:30",
            "1950-60",
            "9999-01-31",
            "15001",
            "A-2024-01",
            "May",
            "2024-01-31-02",
            "Jan",
            "M 2024",
            "é24/01/2024",
            "ééé 2024",
            "45/45/2024",
        ] {
            assert!(!is_date(other), "{other}");
        }
    }
}
