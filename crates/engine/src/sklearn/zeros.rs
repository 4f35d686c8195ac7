//! Which zeros a step writes into the library's matrix. A sparse matrix leaves most of them out, and to XGBoost what is
//! left out is a missing value.

use crate::pickle::View;

/// What becomes of the zeros between two steps. Of matrices side by side the greatest holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Zeros {
    /// All are written, as in any dense matrix.
    Written,
    LeftOut,
    /// Some are written and some left out, and which is not known here.
    Unknown,
}

impl Zeros {
    /// What a step makes of these; `within` is what the steps that it holds make.
    pub(super) fn after(self, name: &str, view: View<'_, '_>, within: Self) -> Self {
        let sparse_if = |is_sparse: Option<bool>, zeros: Self| match is_sparse {
            Some(true) => zeros,
            Some(false) => Self::Written,
            None => Self::Unknown,
        };
        let flag = |name: &str| view.get(name).and_then(View::as_bool);
        match name {
            "Pipeline" | "ColumnTransformer" | "FeatureUnion" => within,
            // 1.1 and older call it `sparse`.
            "OneHotEncoder" => {
                let is_sparse = flag("sparse_output").or_else(|| flag("sparse"));
                sparse_if(is_sparse, Self::LeftOut)
            }
            "KBinsDiscretizer" => {
                let encode = view.get("encode").and_then(View::as_text);
                sparse_if(encode.map(|encode| encode == "onehot"), Self::LeftOut)
            }
            // Older versions have no such parameter.
            "SplineTransformer" => sparse_if(flag("sparse_output").or(Some(false)), Self::Unknown),
            "CountVectorizer" | "TfidfVectorizer" => Self::LeftOut,
            // Terms that count upwards and downwards may add up to a zero that is written.
            "HashingVectorizer" => match (flag("alternate_sign"), flag("binary")) {
                (Some(false), _) | (_, Some(true)) => Self::LeftOut,
                _ => Self::Unknown,
            },
            "TfidfTransformer" => self.max(Self::LeftOut),
            // These leave a sparse matrix sparse.
            "StandardScaler"
            | "MaxAbsScaler"
            | "RobustScaler"
            | "Normalizer"
            | "PolynomialFeatures"
            | "VarianceThreshold"
            | "GenericUnivariateSelect"
            | "SelectPercentile"
            | "SelectKBest"
            | "SelectFpr"
            | "SelectFdr"
            | "SelectFwe"
            | "SelectFromModel"
            | "RFE"
            | "RFECV"
            | "SequentialFeatureSelector" => self,
            "Binarizer" => self.min(Self::LeftOut),
            "FunctionTransformer" if !rounds(view) => self,
            // What they write in place of a value may be 0.
            "FunctionTransformer" | "SimpleImputer" | "QuantileTransformer"
                if self != Self::Written =>
            {
                Self::Unknown
            }
            _ => Self::Written,
        }
    }
}

fn rounds(view: View<'_, '_>) -> bool {
    let name = view.get("func").and_then(View::as_name);
    let functions = ["numpy.rint", "numpy.floor", "numpy.ceil", "numpy.trunc"];
    name.is_some_and(|name| functions.contains(&name))
}
