//! A diff of two transcripts.

/// How many equal lines are shown around a difference.
const CONTEXT: usize = 3;

/// The index of the first line in which the two differ.
pub fn first_difference(expected: &[String], happened: &[String]) -> Option<usize> {
    let shorter = expected.len().min(happened.len());
    let at = (0..shorter).find(|at| expected[*at] != happened[*at]);
    at.or_else(|| (expected.len() != happened.len()).then_some(shorter))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Same,
    Gone,
    New,
}

/// Both transcripts as one text: `-` is expected only, `+` happened only. `first_line` is the
/// number of the first expected line in its file.
pub fn diff(expected: &[String], happened: &[String], first_line: usize) -> String {
    let lines = merge(expected, happened);
    let near = |at: usize| {
        let window = at.saturating_sub(CONTEXT)..lines.len().min(at + CONTEXT + 1);
        lines[window].iter().any(|(mark, _)| *mark != Mark::Same)
    };
    let mut out = String::new();
    let mut number = first_line;
    let mut skipped = false;
    for (at, (mark, line)) in lines.iter().enumerate() {
        if near(at) {
            if skipped {
                out.push_str("         ...\n");
            }
            let (sign, shown) = match mark {
                Mark::Same => (' ', format!("{number:>7}")),
                Mark::Gone => ('-', format!("{number:>7}")),
                Mark::New => ('+', "       ".to_owned()),
            };
            out.push_str(&format!("{shown} {sign} {line}\n"));
        }
        skipped = !near(at);
        number += usize::from(*mark != Mark::New);
    }
    out
}

/// The longest common subsequence decides what counts as the same line.
fn merge<'a>(expected: &'a [String], happened: &'a [String]) -> Vec<(Mark, &'a str)> {
    let (rows, columns) = (expected.len(), happened.len());
    let mut common = vec![vec![0_usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = if expected[row] == happened[column] {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut lines = Vec::new();
    while row < rows || column < columns {
        if row < rows && column < columns && expected[row] == happened[column] {
            lines.push((Mark::Same, expected[row].as_str()));
            (row, column) = (row + 1, column + 1);
        } else if column == columns
            || (row < rows && common[row + 1][column] >= common[row][column + 1])
        {
            lines.push((Mark::Gone, expected[row].as_str()));
            row += 1;
        } else {
            lines.push((Mark::New, happened[column].as_str()));
            column += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    #[test]
    fn a_diff_names_the_lines_of_the_file() {
        let shown = diff(&lines("abcdefghij"), &lines("abXdefghiYj"), 20);
        let expected = "     20   a\n     21   b\n     22 - c\n        + X\n     23   d\n     \
                        24   e\n     25   f\n     26   g\n     27   h\n     28   i\n        + Y\n     \
                        29   j\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn far_apart_differences_are_cut_apart() {
        let shown = diff(&lines("Xbcdefghijk"), &lines("bcdefghijkY"), 1);
        assert!(shown.contains("        ...\n"), "{shown}");
        assert!(!shown.contains(" f\n"), "{shown}");
    }

    #[test]
    fn the_first_difference_may_be_the_end() {
        assert_eq!(first_difference(&lines("ab"), &lines("ab")), None);
        assert_eq!(first_difference(&lines("ab"), &lines("ac")), Some(1));
        assert_eq!(first_difference(&lines("ab"), &lines("abc")), Some(2));
    }
}
