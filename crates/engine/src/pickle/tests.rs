//! What a pickle may not do, and what is read of one that is well made.

use super::{Array, Pickle, VALUES_MAX_OF_SMALL, read, unpacked_max};
use crate::FILE_BYTES_MAX;

fn fault(bytes: &[u8]) -> String {
    read(bytes, bytes.len()).expect_err("it is refused").0
}

fn pickle(bytes: &[u8]) -> Pickle<'_> {
    read(bytes, bytes.len()).expect("it is read")
}

/// Programs that run something in Python. All are refused where they name it, by its name.
#[test]
fn nothing_is_run() {
    for (bytes, name) in [
        // REDUCE, by the names that Python 2 and 3 have on either system.
        (&b"cos\nsystem\n(S'id'\ntR."[..], "os.system"),
        (b"cposix\nsystem\n(S'id'\ntR.", "posix.system"),
        (
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
            "posix.system",
        ),
        (
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
            "builtins.eval",
        ),
        (b"c__builtin__\nexec\n(S'1'\ntR.", "builtins.exec"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"cbuiltins\n__import__\n.", "builtins.__import__"),
        (b"csubprocess\nPopen\n.", "subprocess.Popen"),
        (b"cimportlib\nimport_module\n.", "importlib.import_module"),
        (b"coperator\nattrgetter\n.", "operator.attrgetter"),
        (b"cfunctools\nreduce\n.", "functools.reduce"),
        (b"ctypes\nFunctionType\n.", "types.FunctionType"),
        (
            b"cnumpy.testing._private.utils\nrunstring\n.",
            "numpy.testing._private.utils.runstring",
        ),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cjoblib\nload\n.", "joblib.load"),
        (b"cpandas\nread_pickle\n.", "pandas.read_pickle"),
        (
            b"ccloudpickle.cloudpickle\n_make_function\n.",
            "cloudpickle.cloudpickle._make_function",
        ),
        // INST and OBJ make objects without REDUCE.
        (b"(S'id'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'id'\no.", "os.system"),
        // What a module of the list has itself imported.
        (
            b"\x80\x04\x8c\x0csklearn.base\x8c\x09os.system\x93.",
            "sklearn.base.os.system",
        ),
        (b"\x80\x04\x8c\x00\x8c\x09os.system\x93.", ".os.system"),
    ] {
        let fault = fault(bytes);
        assert!(
            fault.starts_with("byte ") && fault.contains(&format!("`{name}`")),
            "{fault}"
        );
    }
}

/// A name of the list is a note, whatever it is called with: making one more of it calls nothing.
#[test]
fn what_is_made_cannot_be_called() {
    let object = b"csklearn.base\nBaseEstimator\n)\x81";
    let call = [object, &b")R."[..]].concat();
    assert!(
        fault(&call).contains("nothing in the file is run"),
        "{}",
        fault(&call)
    );
    let state = [object, &b"}S'__setstate__'\ncos\nsystem\nsb."[..]].concat();
    assert!(fault(&state).contains("`os.system`"));
    let twice = [object, &b"}b}b."[..]].concat();
    assert!(fault(&twice).contains("a second state"));
    // State for what is no object: attributes of a class that all would share.
    assert!(fault(b"csklearn.base\nBaseEstimator\n}b.").contains("no object"));
}

#[test]
fn names_say_what_to_do() {
    assert!(fault(b"c__main__\nMine\n.").contains("the program that wrote the file"));
}

#[test]
fn counts_are_not_believed() {
    for bytes in [
        &b"\x80\x04B\xff\xff\xff\xff."[..],
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert!(fault(bytes).contains("cut off"), "{}", fault(bytes));
    }
    // A place in the memo beyond any memory.
    let far = pickle(b"Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.");
    assert!(far.root().is_none());
}

/// Lists in lists in lists, by the memo: 2 to the 30th references in a hundred bytes.
#[test]
fn a_bomb_of_references_stays_small() {
    let mut bytes = b"]q\x00".to_vec();
    for depth in 0..30u8 {
        bytes.extend([
            b'0',
            b']',
            b'q',
            depth + 1,
            b'(',
            b'h',
            depth,
            b'h',
            depth,
            b'e',
        ]);
    }
    bytes.push(b'.');
    let bomb = pickle(&bytes);
    assert_eq!(bomb.root().as_list().map(|list| list.len()), Some(2));
    // As is one that holds itself.
    let ring = pickle(b"]q\x00h\x00a.");
    assert_eq!(ring.root().as_list().map(|list| list.len()), Some(1));
}

#[test]
fn what_is_no_program_is_refused_with_its_place() {
    for (bytes, reason) in [
        (&b""[..], "byte 0: the file is cut off"),
        (b"N", "byte 1: the file is cut off"),
        (b".", "byte 0: a value is taken that is not there"),
        (b"(.", "byte 1: a value is taken that is not there"),
        (b"t.", "byte 0: a mark is taken that is not there"),
        (
            b"h\x05.",
            "byte 0: value 5 is taken, and none was remembered as that",
        ),
        (b"(NNNu.", "byte 4: a key without a value"),
        (b"NNa.", "byte 2: items are put into what is no list"),
        (b"\x80\x09N.", "byte 0: protocol 9"),
        (b"\xffN.", "byte 0: 0xff is no instruction"),
        (b"Pid\n.", "byte 0: it refers to something outside"),
        (b"\x82\x01.", "byte 0: it names a class by its number"),
        (b"\x97.", "byte 0: its arrays are outside the file"),
        (b"N.N", "byte 2: something follows"),
    ] {
        assert!(fault(bytes).starts_with(reason), "{}", fault(bytes));
    }
}

#[test]
fn numbers_and_texts_of_every_protocol() {
    for (bytes, number) in [
        (&b"I-12\n."[..], -12),
        (b"L9007199254740993L\n.", 9_007_199_254_740_993),
        (b"J\xff\xff\xff\xff.", -1),
        (b"K\xff.", 255),
        (b"M\x01\x02.", 513),
        (b"\x8a\x00.", 0),
        (b"\x8a\x01\xfe.", -2),
        (b"\x8a\x02\xff\x00.", 255),
    ] {
        assert_eq!(pickle(bytes).root().as_integer(), Some(number));
    }
    assert_eq!(pickle(b"F1.5e3\n.").root().as_number(), Some(1500.0));
    assert_eq!(
        pickle(b"G\x3f\xf8\0\0\0\0\0\0.").root().as_number(),
        Some(1.5)
    );
    assert_eq!(pickle(b"I01\n.").root().as_bool(), Some(true));
    assert_eq!(
        pickle(b"V\\u20ac \xfc\n.").root().as_text(),
        Some("\u{20ac} \u{fc}")
    );
    assert_eq!(
        pickle("X\x03\0\0\0\u{20ac}.".as_bytes()).root().as_text(),
        Some("\u{20ac}")
    );
    for broken in [
        &b"Iabc\n."[..],
        b"V\\u20\n.",
        b"V\\ud800\n.",
        b"X\x01\0\0\0\xff.",
        b"L--1L\n.",
    ] {
        fault(broken);
    }
}

/// An array of the shape, as NumPy reduces it, whose elements are these bytes.
fn array(shape: &[u8], dtype: &[u8], elements: &[u8]) -> Vec<u8> {
    let mut bytes =
        b"\x80\x04cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(K\x01"
            .to_vec();
    bytes.extend(shape);
    bytes.extend(b"cnumpy\ndtype\n\x8c");
    bytes.push(dtype.len() as u8);
    bytes.extend(dtype);
    bytes.extend(b"\x89\x88\x87R\x89C");
    bytes.push(elements.len() as u8);
    bytes.extend(elements);
    bytes.extend(b"tb.");
    bytes
}

#[test]
fn arrays_have_as_many_elements_as_they_say() {
    let good = array(b"K\x02\x85", b"i2", &[1, 0, 0xFE, 0xFF]);
    let good = pickle(&good);
    assert_eq!(
        Array::read(good.root()).unwrap().integers().unwrap(),
        [1, -2]
    );
    let half = array(b"K\x02\x85", b"f2", &[0x00, 0x3E, 0x00, 0xFC]);
    let half = pickle(&half);
    assert_eq!(
        Array::read(half.root()).unwrap().numbers().unwrap(),
        [1.5, f64::NEG_INFINITY]
    );
    let text = array(b"K\x01\x85", b"U2", &[0xFC, 0, 0, 0, 0, 0, 0, 0]);
    let text = pickle(&text);
    assert_eq!(
        Array::read(text.root()).unwrap().text(0).as_deref(),
        Some("\u{fc}")
    );
    for (shape, dtype) in [
        (&b"K\x03\x85"[..], &b"i2"[..]),
        (b"K\xff\x85", b"i2"),
        (b"J\xff\xff\xff\xff\x85", b"i2"),
        (b"\x8a\x08\0\0\0\0\0\0\0\x40K\x08\x86", b"i2"),
        (b"K\xff\x85", b"U0"),
        (b"K\x02\x85", b"c16"),
        (b"K\x02\x85", b""),
        (b"K\x02\x85", b"U4611686018427387904"),
    ] {
        let bytes = array(shape, dtype, &[1, 0, 2, 0]);
        assert!(
            Array::read(pickle(&bytes).root()).is_err(),
            "{shape:?} {dtype:?}"
        );
    }
}

/// A text of an array in which each element is that array again may be asked for only so often.
#[test]
fn copies_of_one_array_are_bounded() {
    let bytes = array(b"K\x02\x85", b"i2", &[1, 0, 2, 0]);
    let pickle = pickle(&bytes);
    let array = Array::read(pickle.root()).unwrap();
    let asked = (0..1 << 20)
        .take_while(|_| array.integers().is_ok())
        .count();
    assert!(asked < 1 << 16, "{asked}");
}

/// Instructions of one byte each, as a file of a few bytes may hold very many of them when it is compressed.
#[test]
fn values_and_references_are_bounded_by_the_size_of_the_file() {
    for (program, count) in [
        (&b"]"[..], VALUES_MAX_OF_SMALL),
        (b"(", 8 * VALUES_MAX_OF_SMALL),
        (b"N2", 8 * VALUES_MAX_OF_SMALL),
        (b"N\x94", VALUES_MAX_OF_SMALL),
    ] {
        let (last, first) = program.split_last().unwrap();
        let program = [first, &vec![*last; count + 1]].concat();
        let fault = read(&program, 1000).expect_err("it is refused").0;
        assert!(fault.contains("more than 1048576 values"), "{fault}");
    }
    assert_eq!(unpacked_max(1000), 128 << 20);
    assert_eq!(unpacked_max(2 << 20), 256 << 20);
    assert_eq!(unpacked_max(200 << 20), FILE_BYTES_MAX);
}
