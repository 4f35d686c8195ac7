//! The one source of random bytes. `clippy.toml` forbids any other, so that whatever is drawn
//! somewhere is found by looking for the callers of this.

/// Random bytes of the operating system, fit for keys.
///
/// # Errors
/// It gave none.
pub fn bytes<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    #[expect(clippy::disallowed_methods, reason = "this is the source")]
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
