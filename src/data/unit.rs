//! Bytes and values in [0, 1], each from the other.

/// A byte divided by 255.
pub fn unit(byte: u8) -> f32 {
    f32::from(byte) / 255.0
}

/// Values in [0, 1] as bytes: rounded to the nearest, clamped.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().map(|v| (255.0 * v + 0.5).clamp(0.0, 255.0) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_divided_not_scaled() {
        assert!((0..=255).any(|b| unit(b) != f32::from(b) * (1.0 / 255.0)));
        assert_eq!((unit(0), unit(255)), (0.0, 1.0));
    }
}
