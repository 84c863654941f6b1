//! Counts and bytes, as messages show them.

/// A count with separated thousands, such as `27,012`.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// A count with its noun, such as `1 unit` or `2 units`.
pub fn plural(n: usize, what: &str) -> String {
    format!("{} {what}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Bytes as two hexadecimal digits each.
pub fn hexadecimal<'b>(bytes: impl IntoIterator<Item = &'b u8>) -> String {
    bytes.into_iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (27012, "27,012"), (1234567, "1,234,567")]
        {
            assert_eq!(count(n), text);
        }
        assert_eq!([1, 2].map(|n| plural(n, "unit")), ["1 unit", "2 units"]);
    }

    #[test]
    fn each_byte_has_two_digits() {
        let bytes = [0, 0x0a, 0xff];
        assert_eq!([hexadecimal(&bytes), hexadecimal(bytes.iter().rev())], ["000aff", "ff0a00"]);
    }
}
