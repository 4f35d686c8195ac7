//! Inputs and outputs of a model as stated in its file.

/// One input of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// The name in the file, or `f0`, `f1`, … if the file has none (as XGBoost itself does).
    pub name: String,
    /// Its type according to the file.
    pub kind: FeatureKind,
    /// Whether the model has a path for rows in which it is missing.
    pub takes_missing: bool,
}

/// The type of an input as a model file states it.
#[derive(Clone, Debug, PartialEq)]
pub enum FeatureKind {
    /// Any real number: to the library an `f64` before it is rounded to the precision of the inputs.
    Number,
    /// A whole number: the library rounds an integer of up to 64 bits to that precision directly.
    Integer,
    /// 0 or 1.
    Boolean,
    /// One of these strings, coded by its position.
    Category(Vec<String>),
    /// One of some categories, whose names the file does not have; the row's value is its code.
    Code,
    /// Any text; the row's value is its number among [`crate::Texts`].
    Text,
    /// A text like those, or a whole number, which is the text that it is written as.
    TextOrInteger {
        /// Whether `True`, or another text that pandas reads as a boolean, was a category in training. Where none was,
        /// booleans were the integers 1 and 0.
        has_boolean_texts: bool,
    },
    /// Of any type, for no prediction depends on it.
    Unused,
}

impl FeatureKind {
    /// Whether a row's value is the number of a text.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text | Self::TextOrInteger { .. })
    }
}

/// What the numbers of one output row mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// One probability, that of the second of two classes.
    Binary,
    /// One probability per class, summing to 1 unless each class is judged alone (LightGBM's `multiclassova`).
    Multiclass {
        /// Number of classes, at least 2.
        classes: usize,
    },
    /// One class number (XGBoost's `multi:softmax`, `binary:hinge`): a label without a probability.
    Class {
        /// Number of classes, at least 2.
        classes: usize,
    },
    /// Plain numbers: regression targets, margins, ranking scores.
    Numbers {
        /// How many per row.
        count: usize,
    },
}

impl Output {
    /// Values it takes in an output row.
    pub fn width(self) -> usize {
        match self {
            Self::Binary | Self::Class { .. } => 1,
            Self::Multiclass { classes } => classes,
            Self::Numbers { count } => count,
        }
    }
}

/// What a file calls a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassLabel {
    /// A whole number.
    Number(i64),
    /// A text, or what is written as one.
    Text(String),
}

/// An output beside the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedOutput {
    /// The name in the file, unlike that of any other output.
    pub name: String,
    /// Meaning of its numbers.
    pub output: Output,
}

/// The precision the model computes in; output values are exact members of that type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

/// Inputs and outputs of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// Inputs in the model's order.
    pub features: Vec<Feature>,
    /// Whether the feature names were in the file.
    pub named: bool,
    /// Meaning of an output row's first numbers: what the model is for.
    pub output: Output,
    /// What the classes of the first output are called, where the file says so; otherwise empty.
    pub class_labels: Vec<ClassLabel>,
    /// What follows in an output row, where the model gives more than one thing.
    pub more_outputs: Vec<NamedOutput>,
    /// Precision of the output values.
    pub precision: Precision,
    /// The number, besides NaN, that stood for a missing value in training, where the file says so.
    /// The model itself does not know it: to it that number is one like any other.
    pub missing: Option<f64>,
}

impl Signature {
    /// Values in an output row.
    pub fn outputs(&self) -> usize {
        let more = self.more_outputs.iter().map(|more| more.output.width());
        self.output.width() + more.sum::<usize>()
    }
}
