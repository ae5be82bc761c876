//! Names of functions that are longer than the line: what a reader misses least is left out first.

/// `name` in `room` columns: without the type that it returns, then without parameters, then without
/// the arguments of templates. If that is not enough, the end is kept: it is the function's own name.
pub(super) fn shortened(name: &str, room: usize) -> String {
    let fits = |text: &str| text.chars().count() <= room;
    if fits(name) {
        return name.into();
    }
    let bare = &name[begin(name)..];
    let mut shorter = bare.to_owned();
    for leaves_out in [None, Some(&['('][..]), Some(&['(', '<'])] {
        if let Some(brackets) = leaves_out {
            shorter = without(bare, brackets);
        }
        if fits(&shorter) {
            return shorter;
        }
    }
    end(&shorter, room)
}

/// The end of a text that is too long.
fn end(text: &str, room: usize) -> String {
    let kept = room.saturating_sub(3);
    let skipped = text.chars().count().saturating_sub(kept);
    "...".chars().chain(text.chars().skip(skipped)).collect()
}

/// Where the name begins in a signature, behind the type that is returned.
fn begin(signature: &str) -> usize {
    let (mut at, mut begin) = (0, 0);
    while let Some(c) = signature[at..].chars().next() {
        match c {
            // Behind it there may be the type that a conversion converts to.
            _ if operator(signature, at) > 0 => break,
            '(' if !is_anonymous(signature, at) => break,
            '(' | '<' | '{' => at = closing(signature, at),
            ' ' => {
                at += 1;
                begin = at;
            }
            c => at += c.len_utf8(),
        }
    }
    begin + (signature[begin..].len() - signature[begin..].trim_start_matches(['*', '&']).len())
}

/// Without what stands in these kinds of brackets.
fn without(name: &str, brackets: &[char]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while let Some(c) = name[at..].chars().next() {
        let length = operator(name, at);
        if length > 0 {
            out += &name[at..at + length];
            at += length;
            continue;
        }
        // Rust's <TYPE as TRAIT>::f begins with one that is needed.
        let is_left_out = brackets.contains(&c) && at > 0 && !is_anonymous(name, at);
        if is_left_out {
            let end = closing(name, at);
            let (open, close) = if c == '<' { ("<", ">") } else { ("(", ")") };
            let dots = if end - at > 2 { "..." } else { "" };
            out += &[open, dots, close].concat();
            at = end;
            continue;
        }
        out.push(c);
        at += c.len_utf8();
    }
    out
}

fn is_anonymous(name: &str, at: usize) -> bool {
    name[at..].starts_with("(anonymous")
}

/// Where the text goes on behind the bracket that is opened at `at`.
fn closing(text: &str, at: usize) -> usize {
    let mut at = at;
    let mut depth = 0usize;
    while let Some(c) = text[at..].chars().next() {
        let length = operator(text, at);
        if length > 0 {
            at += length;
            continue;
        }
        match c {
            '<' | '(' | '[' | '{' => depth += 1,
            '>' if text[..at].ends_with('-') => {}
            '>' | ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += c.len_utf8();
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of an operator's name that begins at `at`, the brackets in it included; else 0.
fn operator(text: &str, at: usize) -> usize {
    const WORD: &str = "operator";
    let rest = &text[at..];
    let is_part = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let Some(behind) = rest.strip_prefix(WORD).filter(|_| !is_part) else { return 0 };
    if behind.starts_with("()") || behind.starts_with("[]") {
        return WORD.len() + 2;
    }
    let is_symbol = |c: char| "<>=!+-*/%&|^~,".contains(c);
    let symbols = behind.chars().take_while(|c| is_symbol(*c)).count();
    match behind.chars().next() {
        _ if symbols > 0 => WORD.len() + symbols,
        // A conversion, new or delete: the word and the blank belong together.
        Some(' ') => WORD.len() + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: &str = "std::basic_ostream<char, std::char_traits<char> >& std::operator<< \
                       <std::char_traits<char> >(std::basic_ostream<char>&, char const*)";

    #[test]
    fn the_returned_type_goes_first_then_parameters_then_arguments() {
        let expected = [
            (200, PUT),
            (
                100,
                "std::operator<< <std::char_traits<char> >(std::basic_ostream<char>&, char const*)",
            ),
            (60, "std::operator<< <std::char_traits<char> >(...)"),
            (40, "std::operator<< <...>(...)"),
            (20, "...ator<< <...>(...)"),
        ];
        for (room, text) in expected {
            assert_eq!(shortened(PUT, room), text);
        }
    }

    #[test]
    fn the_function_s_own_name_stays() {
        for (name, text) in [
            ("void grow<std::vector<int> >(std::vector<int>&)", "grow<...>(...)"),
            ("int* (anonymous namespace)::read(std::istream&)", "(anonymous namespace)::read(...)"),
            (
                "Some::Class<int, long>::operator()(std::string) const",
                "Some::Class<...>::operator()(...) const",
            ),
            (
                "Some::Class<int, long>::operator std::string() const",
                "Some::Class<...>::operator std::string() const",
            ),
            ("bool ns::operator-><A, B>(Class<A, B> const&, int)", "ns::operator-><A, B>(...)"),
            (
                "<alloc::vec::Vec<app::Item> as app::Encode<app::Error>>::encode",
                "<alloc::vec::Vec<...> as app::Encode<...>>::encode",
            ),
            ("app::parse::<fn(u8) -> app::Result<u8>, app::State>", "app::parse::<...>"),
        ] {
            assert_eq!(shortened(name, text.chars().count()), text);
        }
    }

    #[test]
    fn odd_names_do_no_harm() {
        for name in
            ["", "(((", "operator", "<<<>", "operator<", "a b c", "x)>]", "f<(>", "\u{eb}<\u{eb}"]
        {
            for room in 0..12 {
                let text = shortened(name, room);
                assert!(text.chars().count() <= room.max(3), "{name}: {text}");
            }
        }
    }
}
