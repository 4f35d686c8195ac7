//! Placeholder.
use crate::Timestamp;
const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// A new id.
///
/// # Errors
/// No random bytes.
pub fn new_id(now: Timestamp) -> Result<String, getrandom::Error> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)?;
    let bits = (u128::from((now.0 / 1000) as u64 & 0xffff_ffff_ffff) << 32)
        | u128::from(u32::from_be_bytes(random));
    Ok((0..16)
        .rev()
        .map(|i| char::from(BASE32[(bits >> (5 * i)) as usize & 31]))
        .collect())
}
