//! Which known word a misspelt one may have been.

/// Fewer changes than this make a suggestion.
const FAR: usize = 3;
/// A longer word is not compared.
const LONGEST: usize = 64;

/// Returns the closest of `words`, if it is close and not the same. Without regard to case, in the case of `word`.
pub(crate) fn closest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = word.to_lowercase();
    let found = closest_exact(
        &lower,
        words
            .into_iter()
            .map(str::to_lowercase)
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str),
    )?;
    Some(match word {
        _ if word == lower => found,
        _ => found.to_uppercase(),
    })
}

/// As [`closest`], but case counts.
pub(crate) fn closest_exact<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if word.len() > LONGEST {
        return None;
    }
    let mut best = None;
    let mut least = FAR;
    for known in words {
        match distance(word, known) {
            0 => return None,
            changes if changes < least => {
                least = changes;
                best = Some(known.to_owned());
            }
            _ => {}
        }
    }
    best
}

/// How many insertions, deletions, replacements and swaps of neighbours make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().take(LONGEST + FAR).collect();
    let mut older = Vec::new();
    let mut old: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = old[j] + usize::from(a[i] != b[j]);
            let mut least = replaced.min(row[j] + 1).min(old[j + 1] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                let before: &Vec<usize> = &older;
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        older = std::mem::replace(&mut old, row);
    }
    old[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_the_known_one() {
        assert_eq!(closest("FORM", ["FROM", "RUN"]), Some("FROM".to_owned()));
        assert_eq!(closest("cpy", ["COPY", "RUN"]), Some("copy".to_owned()));
        assert_eq!(closest("RNU", ["ENV", "RUN"]), Some("RUN".to_owned()));
        assert_eq!(closest("HELLO", ["FROM", "RUN"]), None);
        assert_eq!(closest_exact("run", ["RUN"]), None);
    }
}
