//! A command as one string: words, as a shell splits them, without any expansion.

/// The words of a command, as a shell splits them: quotes and backslashes count, variables and operators do not.
///
/// # Errors
/// A quote without an end, or a backslash at the end.
pub fn split_words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut begun) = (Vec::new(), String::new(), false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\r' | '\n' => {
                if begun {
                    words.push(std::mem::take(&mut word));
                    begun = false;
                }
                continue;
            }
            '\\' => match letters.next() {
                // A line that goes on.
                Some('\n') => continue,
                Some(next) => word.push(next),
                None => return Err("the command ends with a backslash".to_owned()),
            },
            '\'' => loop {
                match letters.next() {
                    Some('\'') => break,
                    Some(next) => word.push(next),
                    None => return Err("a ' of the command has no end".to_owned()),
                }
            },
            '"' => loop {
                match letters.next() {
                    Some('"') => break,
                    Some('\\') => match letters.next() {
                        Some(next @ ('"' | '\\' | '$' | '`')) => word.push(next),
                        Some('\n') => {}
                        Some(next) => word.extend(['\\', next]),
                        None => return Err("a \" of the command has no end".to_owned()),
                    },
                    Some(next) => word.push(next),
                    None => return Err("a \" of the command has no end".to_owned()),
                }
            },
            other => word.push(other),
        }
        begun = true;
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_by_a_shell() {
        for (text, expected) in [
            ("a  b\tc", vec!["a", "b", "c"]),
            (
                "sh -c 'chown -R 1:1 /data'",
                vec!["sh", "-c", "chown -R 1:1 /data"],
            ),
            (r#"a "b \"c\" \d" e\ f"#, vec!["a", r#"b "c" \d"#, "e f"]),
            ("'' \"\"", vec!["", ""]),
            ("echo $HOME;#x", vec!["echo", "$HOME;#x"]),
            ("  ", vec![]),
        ] {
            assert_eq!(split_words(text).unwrap(), expected, "{text}");
        }
        for text in ["'a", "\"a", "a\\"] {
            assert!(split_words(text).is_err(), "{text}");
        }
    }
}
