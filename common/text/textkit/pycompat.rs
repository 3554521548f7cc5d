//! What chat templates expect of Python and Jinja2 and minijinja does otherwise or not at all.

use crate::fail;
use crate::json::{float_repr, is_float};
use minijinja::value::{from_args, Kwargs, Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Output, State};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::fmt::Write;

/// Bounds the native stack when a value is printed; a namespace may even hold itself.
const MAX_DEPTH: usize = 200;

pub fn install(env: &mut Environment<'static>) {
    env.set_unknown_method_callback(method);
    env.set_formatter(format);
    env.add_filter("trim", trim);
    env.add_filter("string", |v: &Value| text_of(v));
    env.add_filter("default", default);
    env.add_filter("d", default);
    env.add_filter("length", length);
    env.add_filter("count", length);
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_filter("replace", replace);
    env.add_filter("title", title_words);
    env.add_filter("capitalize", |v: &Value| capitalize(&text_of(v)));
    env.add_filter("indent", indent);
    env.add_test("sequence", |v: &Value| {
        matches!(
            v.kind(),
            ValueKind::String | ValueKind::Map | ValueKind::Seq
        ) || (v.kind() == ValueKind::Iterable && v.len().is_some())
    });
    env.add_test("iterable", |v: &Value| !v.is_none() && v.try_iter().is_ok());
    env.add_test("callable", |v: &Value| v.kind() == ValueKind::Plain);
}

/// Python's repr of a string.
fn quote(s: &str, out: &mut String) {
    let q = if s.contains('\'') && !s.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(q);
    for c in s.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == q => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            // Rust prints what Python prints; a leading letter keeps combining marks printable.
            c if !['a', c]
                .iter()
                .collect::<String>()
                .escape_debug()
                .any(|x| x == '\\') =>
            {
                out.push(c)
            }
            c => {
                let _ = match c as u32 {
                    n @ 0..=0xff => write!(out, "\\x{n:02x}"),
                    n @ 0x100..=0xffff => write!(out, "\\u{n:04x}"),
                    n => write!(out, "\\U{n:08x}"),
                };
            }
        }
    }
    out.push(q);
}

/// Python's repr; false when the value is nested too deeply.
fn repr(v: &Value, depth: usize, out: &mut String) -> bool {
    if depth > MAX_DEPTH {
        return false;
    }
    if let Some(s) = v.as_str() {
        quote(s, out);
        return true;
    }
    match v.kind() {
        ValueKind::Number if is_float(v) => match f64::try_from(v.clone()) {
            Ok(x) => out.push_str(&float_repr(x)),
            Err(_) => return false,
        },
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if v.is_tuple() { ('(', ')') } else { ('[', ']') };
            let Ok(items) = v.try_iter() else {
                return false;
            };
            let mut n = 0;
            out.push(open);
            for item in items {
                if n > 0 {
                    out.push_str(", ");
                }
                if !repr(&item, depth + 1, out) {
                    return false;
                }
                n += 1;
            }
            if v.is_tuple() && n == 1 {
                out.push(',');
            }
            out.push(close);
        }
        ValueKind::Map => {
            let Ok(keys) = v.try_iter() else { return false };
            out.push('{');
            for (i, key) in keys.enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                if !repr(&key, depth + 1, out) {
                    return false;
                }
                out.push_str(": ");
                let Ok(value) = v.get_item(&key) else {
                    return false;
                };
                if !repr(&value, depth + 1, out) {
                    return false;
                }
            }
            out.push('}');
        }
        ValueKind::Undefined => out.push_str("Undefined"),
        _ => {
            let _ = write!(out, "{v}");
        }
    }
    true
}

/// Python's str(); what cannot be printed gives "...", as Python's own cut-off of cycles does.
pub fn text_of(v: &Value) -> String {
    if let Some(s) = v.as_str() {
        return s.to_string();
    }
    let mut out = String::new();
    if !v.is_undefined() && !repr(v, 0, &mut out) {
        out.push_str("...");
    }
    out
}

fn format(out: &mut Output, _: &mut State, v: &Value) -> Result<(), Error> {
    let r = match v.as_str() {
        Some(s) => out.write_str(s),
        None => out.write_str(&text_of(v)),
    };
    r.map_err(Error::from)
}

/// str.isspace: Rust's White_Space and the four separators that Python counts by their direction.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn strip<'a>(s: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let hit = |c: char| chars.map_or_else(|| is_space(c), |set| set.contains(c));
    let s = if left { s.trim_start_matches(hit) } else { s };
    if right {
        s.trim_end_matches(hit)
    } else {
        s
    }
}

fn trim(v: &Value, chars: Option<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let chars = match chars {
        Some(c) => Some(c),
        None => kwargs.get::<Option<Value>>("chars")?,
    };
    kwargs.assert_all_used()?;
    let chars = chars.filter(|c| !c.is_none());
    Ok(strip(
        &text_of(v),
        chars.as_ref().map(text_of).as_deref(),
        true,
        true,
    )
    .to_string())
}

/// Taken as a list, because an Option<Value> cannot tell `default(none)` from `default()`.
fn default(v: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let (args, kwargs): (&[Value], Kwargs) = from_args(&args)?;
    if args.len() > 2 {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let other = match args.first() {
        Some(other) => other.clone(),
        None if kwargs.has("default_value") => kwargs.get("default_value")?,
        None => Value::from(""),
    };
    let lax = match args.get(1) {
        Some(lax) => lax.is_true(),
        None => kwargs
            .get::<Option<Value>>("boolean")?
            .is_some_and(|lax| lax.is_true()),
    };
    kwargs.assert_all_used()?;
    let use_other = v.is_undefined() || (lax && !v.is_true());
    Ok(if use_other { other } else { v.clone() })
}

fn length(v: &Value) -> Result<usize, Error> {
    match v.kind() {
        ValueKind::Undefined => Ok(0),
        ValueKind::Iterable if v.len().is_none() => Ok(v.try_iter()?.count()),
        kind => v
            .len()
            .ok_or_else(|| fail(format!("a value of type {kind} has no length"))),
    }
}

fn known(v: &Value) -> Result<(), Error> {
    if v.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    Ok(())
}

fn int(v: &Value, other: Option<Value>, base: Option<u32>, kwargs: Kwargs) -> Result<Value, Error> {
    let other = other.or(kwargs.get("default")?).unwrap_or(Value::from(0));
    let base = base.or(kwargs.get("base")?).unwrap_or(10);
    kwargs.assert_all_used()?;
    known(v)?;
    if v.kind() == ValueKind::Bool {
        return Ok(Value::from(i64::from(v.is_true())));
    }
    if v.is_integer() {
        return Ok(v.clone());
    }
    if let Some(s) = v.as_str() {
        let s = strip(s, None, true, true);
        let prefix = [(2, "0b"), (8, "0o"), (16, "0x")]
            .iter()
            .find(|p| p.0 == base);
        let digits = prefix.and_then(|p| s.strip_prefix(p.1)).unwrap_or(s);
        if (2..=36).contains(&base) {
            if let Ok(n) = i128::from_str_radix(digits, base) {
                return Ok(Value::from(n));
            }
        }
    }
    Ok(number(v)
        .filter(|x| x.is_finite())
        .map_or(other, |x| Value::from(x.trunc() as i128)))
}

/// Python's float(), None where it raises.
fn number(v: &Value) -> Option<f64> {
    match v.as_str() {
        Some(s) => strip(s, None, true, true).parse().ok(),
        None if v.kind() == ValueKind::Bool => Some(f64::from(u8::from(v.is_true()))),
        None if v.is_number() => f64::try_from(v.clone()).ok(),
        None => None,
    }
}

fn float(v: &Value, other: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let other = other.or(kwargs.get("default")?).unwrap_or(Value::from(0.0));
    kwargs.assert_all_used()?;
    known(v)?;
    Ok(number(v).map_or(other, Value::from))
}

fn replace(v: &Value, old: &Value, new: &Value, count: Option<i64>) -> String {
    let (s, old, new) = (text_of(v), text_of(old), text_of(new));
    match count {
        Some(n) if n >= 0 => s.replacen(&old, &new, n as usize),
        _ => s.replace(&old, &new),
    }
}

/// Python's x[start:stop:step] for a negative step.
fn slice_back<T: Clone>(x: &[T], start: Option<i64>, stop: Option<i64>, step: i64) -> Vec<T> {
    let n = x.len() as i64;
    let clamp = |i: i64| if i < 0 { (n + i).max(-1) } else { i.min(n - 1) };
    let (mut i, stop) = (start.map_or(n - 1, clamp), stop.map_or(-1, clamp));
    let mut out = Vec::new();
    while i > stop {
        out.push(x[i as usize].clone());
        i = i.saturating_add(step);
    }
    out
}

fn slice(v: &Value, args: &[Value]) -> Result<Value, Error> {
    let (start, stop, step): (Option<i64>, Option<i64>, i64) = from_args(args)?;
    if step >= 0 {
        return Err(fail("a backward slice needs a negative step"));
    }
    if let Some(s) = v.as_str() {
        let chars: Vec<char> = s.chars().collect();
        return Ok(Value::from(
            slice_back(&chars, start, stop, step)
                .iter()
                .collect::<String>(),
        ));
    }
    if !matches!(v.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(fail(format!(
            "a value of type {} cannot be sliced",
            v.kind()
        )));
    }
    let items: Vec<Value> = v.try_iter()?.collect();
    let items = slice_back(&items, start, stop, step);
    Ok(if v.is_tuple() {
        Value::from(Tuple::from(items))
    } else {
        Value::from(items)
    })
}

/// Jinja2's indent: a last line break counts as an empty last line, which stays bare.
fn indent(
    v: &Value,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = match width {
        Some(w) => Some(w),
        None => kwargs.get::<Option<Value>>("width")?,
    };
    let pad = match width {
        None => " ".repeat(4),
        Some(w) => match w.as_str() {
            Some(s) => s.to_string(),
            None => " ".repeat(i64::try_from(w)?.clamp(0, 1024) as usize),
        },
    };
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = blank.or(kwargs.get("blank")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let s = text_of(v) + "\n";
    let mut out = String::new();
    for (i, line) in split_lines(&s, false).into_iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if if i == 0 {
            first
        } else {
            blank || !line.is_empty()
        } {
            out.push_str(&pad);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn split_space(s: &str, max: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = strip(s, None, !from_right, from_right);
    while !rest.is_empty() {
        let hit = if from_right {
            rest.rfind(is_space)
        } else {
            rest.find(is_space)
        };
        let Some(i) = hit.filter(|_| parts.len() < max) else {
            parts.push(rest);
            break;
        };
        if from_right {
            let c = rest[i..].chars().next().map_or(1, char::len_utf8);
            parts.push(&rest[i + c..]);
            rest = strip(&rest[..i], None, false, true);
        } else {
            parts.push(&rest[..i]);
            rest = strip(&rest[i..], None, true, false);
        }
    }
    if from_right {
        parts.reverse();
    }
    parts
}

fn split(s: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (sep, max, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let sep = match sep {
        Some(v) => Some(v),
        None => kwargs.get::<Option<Value>>("sep")?,
    };
    let max = max.or(kwargs.get("maxsplit")?).unwrap_or(-1);
    kwargs.assert_all_used()?;
    let max = usize::try_from(max).unwrap_or(usize::MAX - 1);
    let parts: Vec<&str> = match sep.as_ref().filter(|v| !v.is_none()) {
        None => split_space(s, max, from_right),
        Some(v) => {
            let sep = v
                .as_str()
                .filter(|x| !x.is_empty())
                .ok_or_else(|| fail("bad separator"))?;
            let mut p: Vec<&str> = if from_right {
                s.rsplitn(max + 1, sep).collect()
            } else {
                s.splitn(max + 1, sep).collect()
            };
            if from_right {
                p.reverse();
            }
            p
        }
    };
    Ok(Value::from_iter(parts))
}

fn split_lines(s: &str, keep: bool) -> Vec<&str> {
    let is_end = |c: char| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = s;
    while !rest.is_empty() {
        let Some(i) = rest.find(is_end) else {
            lines.push(rest);
            break;
        };
        let end = match rest[i..].starts_with("\r\n") {
            true => i + 2,
            false => i + rest[i..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if keep { end } else { i }]);
        rest = &rest[end..];
    }
    lines
}

/// One character in title case: the first of its capitals, the others small ("ß" is "Ss").
fn title_char(c: char, out: &mut String) {
    let mut capitals = c.to_uppercase();
    let first = capitals.next().unwrap_or(c);
    out.push(first);
    for other in capitals {
        if first.is_uppercase() {
            out.extend(other.to_lowercase());
        } else {
            out.push(other);
        }
    }
}

/// str.title: a cased letter after a cased one is lowered, any other is raised.
fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut inside = false;
    for c in s.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            title_char(c, &mut out);
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

fn capitalize(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut rest = s.chars();
    if let Some(c) = rest.next() {
        title_char(c, &mut out);
    }
    out + &rest.as_str().to_lowercase()
}

/// The filter title: other word borders than str.title has, and no title case.
fn title_words(v: &Value) -> String {
    let is_border = |c: char| is_space(c) || "-({[<".contains(c);
    let mut out = String::new();
    for word in text_of(v).split_inclusive(is_border) {
        let first = word.chars().next().map_or(0, char::len_utf8);
        out += &(word[..first].to_uppercase() + &word[first..].to_lowercase());
    }
    out
}

fn partition(s: &str, sep: &str, from_right: bool) -> Result<Value, Error> {
    if sep.is_empty() {
        return Err(fail("empty separator"));
    }
    let hit = if from_right {
        s.rsplit_once(sep)
    } else {
        s.split_once(sep)
    };
    let parts = match hit {
        Some((a, b)) => [a, sep, b],
        None if from_right => ["", "", s],
        None => [s, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

fn str_method(s: &str, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let one = || from_args::<(&str,)>(args).map(|a| a.0);
    Some(match name {
        "strip" | "lstrip" | "rstrip" => from_args::<(Option<&str>,)>(args)
            .map(|a| Value::from(strip(s, a.0, name != "rstrip", name != "lstrip"))),
        "split" => split(s, args, false),
        "rsplit" => split(s, args, true),
        "splitlines" => from_args::<(Option<bool>, Kwargs)>(args).and_then(|(keep, kwargs)| {
            let keep = keep.or(kwargs.get("keepends")?).unwrap_or(false);
            kwargs.assert_all_used()?;
            Ok(Value::from_iter(split_lines(s, keep)))
        }),
        "removeprefix" => one().map(|p| Value::from(s.strip_prefix(p).unwrap_or(s))),
        "removesuffix" => one().map(|p| Value::from(s.strip_suffix(p).unwrap_or(s))),
        "partition" => one().and_then(|p| partition(s, p, false)),
        "rpartition" => one().and_then(|p| partition(s, p, true)),
        "index" => one().and_then(|p| {
            let i = s.find(p).ok_or_else(|| fail("substring not found"))?;
            Ok(Value::from(s[..i].chars().count()))
        }),
        "title" => from_args::<()>(args).map(|()| Value::from(title(s))),
        "capitalize" => from_args::<()>(args).map(|()| Value::from(capitalize(s))),
        _ => return None,
    })
}

fn method(state: &mut State, v: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if name == "__slice__" {
        return slice(v, args);
    }
    if let Some(r) = v.as_str().and_then(|s| str_method(s, name, args)) {
        return r;
    }
    if matches!(v.kind(), ValueKind::Seq | ValueKind::Iterable) && name == "index" {
        let (what,): (&Value,) = from_args(args)?;
        let i = v.try_iter()?.position(|x| x == *what);
        return i
            .map(Value::from)
            .ok_or_else(|| fail("the value is not in the list"));
    }
    if matches!(v.kind(), ValueKind::Seq | ValueKind::Map) && name == "copy" && args.is_empty() {
        return Ok(v.clone());
    }
    unknown_method_callback(state, v, name, args)
}
