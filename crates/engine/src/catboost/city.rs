//! CityHash64 in its first version (Pike and Alakuijala, 2011), by which the library knows categories.
//!
//! Later versions give other numbers. The numbers of a text are read little-endian.

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;
const K3: u64 = 0xc949_d7c7_509e_6557;

/// The hash of a category: the lower half, as the signed number that model files have.
pub(super) fn category(text: &str) -> i32 {
    hash(text.as_bytes()) as i32
}

fn hash(bytes: &[u8]) -> u64 {
    match bytes.len() {
        0..=16 => upto_16(bytes),
        17..=32 => upto_32(bytes),
        33..=64 => upto_64(bytes),
        _ => long(bytes),
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn half_word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u64::from(u32::from_le_bytes(word))
}

fn shift_mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

/// Two words become one, as in Murmur.
fn mix(low: u64, high: u64) -> u64 {
    const FACTOR: u64 = 0x9ddf_ea08_eb38_2d69;
    let a = shift_mix((low ^ high).wrapping_mul(FACTOR));
    let b = shift_mix((high ^ a).wrapping_mul(FACTOR));
    b.wrapping_mul(FACTOR)
}

fn upto_16(bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    match bytes.len() {
        0 => K2,
        1..=3 => {
            let [first, middle, last] =
                [0, bytes.len() / 2, bytes.len() - 1].map(|at| u64::from(bytes[at]));
            let a = (first + (middle << 8)).wrapping_mul(K2);
            let b = (length + (last << 2)).wrapping_mul(K3);
            shift_mix(a ^ b).wrapping_mul(K2)
        }
        4..=8 => mix(
            length.wrapping_add(half_word(bytes, 0) << 3),
            half_word(bytes, bytes.len() - 4),
        ),
        _ => {
            let a = word(bytes, 0);
            let b = word(bytes, bytes.len() - 8);
            mix(a, b.wrapping_add(length).rotate_right(length as u32)) ^ b
        }
    }
}

fn upto_32(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let a = word(bytes, 0).wrapping_mul(K1);
    let b = word(bytes, 8);
    let c = word(bytes, length - 8).wrapping_mul(K2);
    let d = word(bytes, length - 16).wrapping_mul(K0);
    let low = a.wrapping_sub(b).rotate_right(43);
    let high = a.wrapping_add((b ^ K3).rotate_right(20));
    mix(
        low.wrapping_add(c.rotate_right(30)).wrapping_add(d),
        high.wrapping_sub(c).wrapping_add(length as u64),
    )
}

/// Half of the work on 33 to 64 bytes, which is done from both ends.
fn fold(mut a: u64, second: u64, third: u64, z: u64) -> (u64, u64) {
    let mut b = a.wrapping_add(z).rotate_right(52);
    let mut c = a.rotate_right(37);
    a = a.wrapping_add(second);
    c = c.wrapping_add(a.rotate_right(7));
    a = a.wrapping_add(third);
    b = b.wrapping_add(a.rotate_right(31)).wrapping_add(c);
    (a.wrapping_add(z), b)
}

fn upto_64(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let end = |back: usize| word(bytes, length - back);
    let start = (length as u64).wrapping_add(end(16)).wrapping_mul(K0);
    let v = fold(
        word(bytes, 0).wrapping_add(start),
        word(bytes, 8),
        word(bytes, 16),
        word(bytes, 24),
    );
    let w = fold(
        word(bytes, 16).wrapping_add(end(32)),
        end(24),
        end(16),
        end(8),
    );
    let first = v.0.wrapping_add(w.1).wrapping_mul(K2);
    let second = w.0.wrapping_add(v.1).wrapping_mul(K0);
    let r = shift_mix(first.wrapping_add(second));
    shift_mix(r.wrapping_mul(K0).wrapping_add(v.1)).wrapping_mul(K2)
}

/// Two words from 32 bytes and two seeds.
fn weak(bytes: &[u8], at: usize, a: u64, b: u64) -> (u64, u64) {
    let [w, x, y, z] = [0, 8, 16, 24].map(|offset| word(bytes, at + offset));
    let a = a.wrapping_add(w);
    let b = b.wrapping_add(a).wrapping_add(z).rotate_right(21);
    let more = a.wrapping_add(x).wrapping_add(y);
    let b = b.wrapping_add(more.rotate_right(44));
    (more.wrapping_add(z), b.wrapping_add(a))
}

/// The last 64 bytes first, then all in chunks of 64, of which the last may be cut short at its end.
fn long(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let mut x = word(bytes, 0);
    let mut y = word(bytes, length - 16) ^ K1;
    let mut z = word(bytes, length - 56) ^ K0;
    let mut v = weak(bytes, length - 64, length as u64, y);
    let mut w = weak(bytes, length - 32, (length as u64).wrapping_mul(K1), K0);
    z = z.wrapping_add(shift_mix(v.1).wrapping_mul(K1));
    x = z.wrapping_add(x).rotate_right(39).wrapping_mul(K1);
    y = y.rotate_right(33).wrapping_mul(K1);
    for at in (0..(length - 1) / 64 * 64).step_by(64) {
        x = x
            .wrapping_add(y)
            .wrapping_add(v.0)
            .wrapping_add(word(bytes, at + 16));
        x = x.rotate_right(37).wrapping_mul(K1) ^ w.1;
        y = y.wrapping_add(v.1).wrapping_add(word(bytes, at + 48));
        y = y.rotate_right(42).wrapping_mul(K1) ^ v.0;
        z = (z ^ w.0).rotate_right(33);
        v = weak(bytes, at, v.1.wrapping_mul(K1), x.wrapping_add(w.0));
        w = weak(bytes, at + 32, z.wrapping_add(w.1), y);
        std::mem::swap(&mut z, &mut x);
    }
    let low = mix(v.0, w.0)
        .wrapping_add(shift_mix(y).wrapping_mul(K1))
        .wrapping_add(z);
    mix(low, mix(v.1, w.1).wrapping_add(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `cat_features_hash` in the JSON of CatBoost 1.2.10.
    #[test]
    fn categories_have_the_numbers_that_the_library_gives_them() {
        for (length, expected) in [
            (0, 0x2f90_404f_u32),
            (1, 0x7629_930d),
            (2, 0xf1ee_69a8),
            (3, 0x643a_9f9e),
            (4, 0x8166_7514),
            (7, 0x0a30_6bcf),
            (8, 0x5c78_ba7b),
            (9, 0xb84f_9c30),
            (15, 0x1563_ecf8),
            (16, 0xc533_a5b5),
            (17, 0xb1b2_b276),
            (24, 0x715a_ec3c),
            (31, 0x8a43_64f2),
            (32, 0x2aae_fa3d),
            (33, 0x1aa7_f27e),
            (47, 0xd8b5_f77e),
            (63, 0x6d57_7339),
            (64, 0x79d5_9cbd),
            (65, 0x8a58_67a9),
            (100, 0xfc8b_84b2),
            (127, 0xd816_387e),
            (128, 0xc1de_aa41),
            (129, 0x314a_e092),
            (200, 0xd146_a683),
        ] {
            let letter = |place: usize| char::from(b'a' + ((place * 7 + length) % 26) as u8);
            let text: String = (0..length).map(letter).collect();
            assert_eq!(category(&text), expected as i32, "{length}");
        }
    }
}
