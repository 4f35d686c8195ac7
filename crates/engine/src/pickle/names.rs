//! Which classes and functions a pickle may name.

use crate::document::Fault;

/// Modules all of whose names are data here: their objects are maps of attributes.
const MODULES: [&str; 10] = [
    // Where some versions of scikit-learn, such as 1.5, have the losses of boosting.
    "_loss.",
    "sklearn.",
    "xgboost.",
    "lightgbm.",
    "catboost.",
    "numpy.random.",
    "scipy.sparse.",
    // Which of NumPy's or another library's functions a spline makes arrays by.
    "scipy._lib.array_api_compat.",
    "pandas.core.indexes.",
    "pandas._libs.internals.",
];

const NAMES: [&str; 32] = [
    "_codecs.encode",
    "builtins.bool",
    "builtins.bytearray",
    "builtins.bytes",
    "builtins.complex",
    "builtins.dict",
    "builtins.float",
    "builtins.frozenset",
    "builtins.int",
    "builtins.list",
    "builtins.object",
    "builtins.range",
    "builtins.set",
    "builtins.slice",
    "builtins.str",
    "builtins.tuple",
    "collections.Counter",
    "collections.OrderedDict",
    "collections.defaultdict",
    "functools.partial",
    "joblib.numpy_pickle.NumpyArrayWrapper",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "numpy.dtype",
    "numpy.ma.MaskedArray",
    "numpy.ma.core.MaskedArray",
    "numpy.ma.core._mareconstruct",
    "numpy.ndarray",
    "scipy.interpolate._bsplines.BSpline",
    "copyreg.__newobj__",
    "copyreg._reconstructor",
];

/// Types of NumPy's numbers and texts, which estimators have as parameters.
const NUMPY_TYPES: [&str; 20] = [
    "bool", "bool_", "bytes_", "double", "float16", "float32", "float64", "float_", "int16",
    "int32", "int64", "int8", "int_", "intp", "object_", "str_", "uint16", "uint32", "uint64",
    "uint8",
];

/// NumPy's functions of one number, which are data as well: the step that names one is computed here.
const NUMPY_FUNCTIONS: [&str; 27] = [
    "abs",
    "absolute",
    "arcsin",
    "arcsinh",
    "arctan",
    "cbrt",
    "ceil",
    "cos",
    "exp",
    "exp2",
    "expm1",
    "fabs",
    "floor",
    "log",
    "log10",
    "log1p",
    "log2",
    "negative",
    "reciprocal",
    "rint",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
];

/// How much of a name an error repeats, in characters.
const NAME_SHOWN: usize = 120;

/// The one name for what several versions of Python and NumPy call differently, if a pickle may have it.
pub(super) fn admit(module: &str, name: &str) -> Result<Box<str>, Fault> {
    let module = match module {
        "__builtin__" => "builtins",
        "copy_reg" => "copyreg",
        "numpy._core.multiarray" => "numpy.core.multiarray",
        "numpy._core.numeric" => "numpy.core.numeric",
        "numpy.core._multiarray_umath" | "numpy._core._multiarray_umath" => "numpy",
        module => module,
    };
    let full = format!("{module}.{name}");
    let is_known = NAMES.contains(&full.as_str())
        || module == "numpy" && (NUMPY_TYPES.contains(&name) || NUMPY_FUNCTIONS.contains(&name))
        || MODULES.iter().any(|known| full.starts_with(known)) && is_plain(name);
    match is_known {
        true => Ok(full.into()),
        false => Err(refusal(&full)),
    }
}

/// Whether a name is one of a module itself: `STACK_GLOBAL` follows dots into what the module has imported.
fn is_plain(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn refusal(full: &str) -> Fault {
    let shown: String = full.chars().take(NAME_SHOWN).collect();
    if full.starts_with("__main__.") {
        return Fault(format!(
            "`{shown}` is a class or function of the program that wrote the file, and its code is not in the file; \
             use the transformers of scikit-learn in its place"
        ));
    }
    Fault(format!(
        "`{shown}` is no data of scikit-learn, and nothing in the file is run; if the file is yours, take the step \
         that needs it out of the pipeline, such as a function in a FunctionTransformer or a class of your own"
    ))
}
