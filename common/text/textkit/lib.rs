//! Chat templates for penstock: minijinja set up to render what transformers renders.
//!
//! Invariants: a built template is never changed, so threads share it; nothing panics into C; the
//! clock is the caller's. The three files: lib.rs is the C interface and the environment, json.rs is
//! Python's json.dumps, pycompat.rs is what Jinja2 has from Python and minijinja has not.

mod json;
mod pycompat;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void, CString};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::{fmt, io, ptr, slice, str};

// The cases of textkit.h, in its order.
const OK: c_int = 0;
const E_SYNTAX: c_int = 1;
const E_RENDER: c_int = 2;
const E_RAISED: c_int = 3;
const E_INPUT: c_int = 4;
const E_LIMIT: c_int = 5;
const E_PANIC: c_int = 6;

const NAME: &str = "chat_template"; // appears in error texts: "(in chat_template:12)"

#[repr(C)]
pub struct TkStr {
    ptr: *mut c_char,
    len: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct TkLimits {
    fuel: u64,
    out_bytes: usize,
}

pub struct TkTemplate {
    env: Environment<'static>,
    out_bytes: usize,
}

/// Marks an error as the template's own refusal, so that its text can be told from our wrapping.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

thread_local! {
    static NOW: Cell<*const c_void> = const { Cell::new(ptr::null()) };
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

extern "C" {
    fn strftime(s: *mut c_char, max: usize, format: *const c_char, tm: *const c_void) -> usize;
}

pub(crate) fn fail(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.into())
}

fn raise_exception(msg: &Value) -> Result<Value, Error> {
    let text = pycompat::text_of(msg);
    Err(fail(text.clone()).with_source(Raised(text)))
}

fn strftime_now(format: String) -> Result<String, Error> {
    let tm = NOW.get();
    let format = CString::new(format).map_err(|_| fail("NUL in a time format"))?;
    if tm.is_null() {
        return Err(fail("no clock was given"));
    }
    let mut buf = [0u8; 1024];
    // SAFETY: tm is the caller's struct tm, alive during the render call; buf's size is passed.
    let n = unsafe { strftime(buf.as_mut_ptr().cast(), buf.len(), format.as_ptr(), tm) };
    Ok(String::from_utf8_lossy(&buf[..n]).into_owned())
}

/// tojson as transformers defines it: json.dumps with these four arguments.
fn tojson(
    v: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    separators: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let style = json::Style::from_args(ensure_ascii, indent, separators, &kwargs)?;
    kwargs.assert_all_used()?;
    let mut out = String::new();
    json::dumps(v, &style, 0, &mut out)?;
    Ok(Value::from(out))
}

/// Length of the string literal that starts at code[0], a quote.
fn literal_len(code: &str) -> usize {
    let quote = code.as_bytes()[0];
    let mut escaped = false;
    for (i, b) in code.bytes().enumerate().skip(1) {
        if escaped {
            escaped = false;
        } else if b == b'\\' {
            escaped = true;
        } else if b == quote {
            return i + 1;
        }
    }
    code.len()
}

/// Reads a slice with a negative step at code[0], a '[': its three parts and its length.
fn backward_slice(code: &str) -> Option<([&str; 3], usize)> {
    let (mut depth, mut i, mut start) = (0, 1, 1);
    let mut parts = Vec::new();
    while i < code.len() {
        match code.as_bytes()[i] {
            b'"' | b'\'' => {
                i += literal_len(&code[i..]);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b':' if depth == 0 => {
                parts.push(code[start..i].trim());
                start = i + 1;
            }
            b']' if depth == 0 => {
                parts.push(code[start..i].trim());
                let parts: [&str; 3] = parts.try_into().ok()?;
                return parts[2].starts_with('-').then_some((parts, i + 1));
            }
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        i += 1;
    }
    None
}

/// Copies one tag's code (after its opening, up to its closing delimiter), backward slices
/// rewritten; returns the number of bytes read.
fn rewrite_code(code: &str, close: &str, out: &mut String) -> usize {
    let mut i = 0;
    while i < code.len() && !code[i..].starts_with(close) {
        let rest = &code[i..];
        let n = match rest.as_bytes()[0] {
            b'"' | b'\'' => literal_len(rest),
            b'[' => match backward_slice(rest) {
                Some((parts, n)) => {
                    let args = parts.map(|p| if p.is_empty() { "none" } else { p });
                    out.push_str(&format!(".__slice__({})", args.join(", ")));
                    i += n;
                    continue;
                }
                None => 1,
            },
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        out.push_str(&rest[..n]);
        i += n;
    }
    i
}

/// Two rewrites inside `{% %}` and `{{ }}`, neither in strings, comments nor raw blocks.
/// `{% generation %}` marks text for training masks: for rendering it is only a scope, which `with`
/// is too. In minijinja 3.0.5 `x[::-1]` panics when x is empty and `x[2:0:-1]` includes item 0:
/// slices with a negative step become a method of ours.
fn rewrite(src: &str) -> String {
    let mut out = String::with_capacity(src.len() + 64);
    let mut rest = src;
    while let Some(i) = ["{%", "{{", "{#"].iter().filter_map(|d| rest.find(d)).min() {
        let (open, after) = (&rest[i..i + 2], &rest[i + 2..]);
        out.push_str(&rest[..i]);
        if open == "{#" {
            let n = after.find("#}").map_or(after.len(), |n| n + 2);
            out.push_str(&rest[i..i + 2 + n]);
            rest = &after[n..];
            continue;
        }
        let mut code = String::new();
        let n = rewrite_code(after, if open == "{%" { "%}" } else { "}}" }, &mut code);
        let word = code.trim_start_matches(['-', '+']).trim();
        let word = word.trim_end_matches(['-', '+']).trim_end();
        rest = &after[n..];
        out.push_str(open);
        match (open, word) {
            ("{%", "generation") => out.push_str(&code.replace("generation", "with")),
            ("{%", "endgeneration") => out.push_str(&code.replace("endgeneration", "endwith")),
            _ => out.push_str(&code),
        }
        if open == "{%" && word == "raw" {
            let n = rest.find("endraw").unwrap_or(rest.len());
            out.push_str(&rest[..n]);
            rest = &rest[n..];
        }
    }
    out + rest
}

fn build(src: &str, limits: TkLimits) -> Result<TkTemplate, Error> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    env.set_syntax(syntax);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(limits.fuel));
    pycompat::install(&mut env);
    env.add_filter("tojson", tojson);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    // Jinja2 reads every line ending as "\n".
    let src = src.replace("\r\n", "\n").replace('\r', "\n");
    env.add_template_owned(NAME, rewrite(&src))?;
    Ok(TkTemplate {
        env,
        out_bytes: limits.out_bytes,
    })
}

struct Bounded {
    buf: Vec<u8>,
    max: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, b: &[u8]) -> io::Result<usize> {
        if b.len() > self.max - self.buf.len() {
            return Err(io::Error::other("output limit"));
        }
        self.buf.extend_from_slice(b);
        Ok(b.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn classify(e: &Error) -> (c_int, String) {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(e);
    while let Some(s) = source {
        if let Some(r) = s.downcast_ref::<Raised>() {
            return (E_RAISED, r.0.clone());
        }
        source = s.source();
    }
    let code = match e.kind() {
        ErrorKind::OutOfFuel | ErrorKind::WriteFailure => E_LIMIT,
        _ => E_RENDER,
    };
    (code, e.to_string())
}

fn panic_text(p: &(dyn std::any::Any + Send)) -> String {
    let text = match (p.downcast_ref::<&str>(), p.downcast_ref::<String>()) {
        (Some(s), _) => s,
        (_, Some(s)) => s.as_str(),
        _ => "no text",
    };
    format!("panic: {text}")
}

/// Runs f and stores its text or error text in *out; a panic becomes E_PANIC. The default hook would
/// print it to stderr, so ours is silent, but only on a thread that is inside this function.
///
/// # Safety
/// out points to a writable TkStr.
unsafe fn guard(out: *mut TkStr, f: impl FnOnce() -> Result<Vec<u8>, (c_int, String)>) -> c_int {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                before(info);
            }
        }));
    });
    GUARDED.set(true);
    let r = panic::catch_unwind(AssertUnwindSafe(f));
    GUARDED.set(false);
    let (code, bytes) = match r {
        Ok(Ok(bytes)) => (OK, bytes),
        Ok(Err((code, text))) => (code, text.into_bytes()),
        Err(p) => (E_PANIC, panic_text(&*p).into_bytes()),
    };
    let bytes = bytes.into_boxed_slice();
    (*out).len = bytes.len();
    (*out).ptr = Box::into_raw(bytes).cast();
    code
}

/// # Safety
/// The pointers are valid as textkit.h says; src may be NULL when len is 0.
#[no_mangle]
pub unsafe extern "C" fn tk_template_create(
    out: *mut *mut TkTemplate,
    src: *const c_char,
    len: usize,
    limits: *const TkLimits,
    err: *mut TkStr,
) -> c_int {
    guard(err, || {
        let src = if len == 0 {
            &[][..]
        } else {
            slice::from_raw_parts(src.cast::<u8>(), len)
        };
        let src = str::from_utf8(src).map_err(|_| (E_SYNTAX, "it is not UTF-8".to_string()))?;
        let t = build(src, *limits).map_err(|e| (E_SYNTAX, classify(&e).1))?;
        *out = Box::into_raw(Box::new(t));
        Ok(Vec::new())
    })
}

/// # Safety
/// The pointers are valid as textkit.h says.
#[no_mangle]
pub unsafe extern "C" fn tk_template_render(
    t: *const TkTemplate,
    ctx: *const c_char,
    len: usize,
    now: *const c_void,
    out: *mut TkStr,
) -> c_int {
    NOW.set(now);
    let code = guard(out, || {
        let t = &*t;
        let ctx = slice::from_raw_parts(ctx.cast::<u8>(), len);
        let ctx: Value = serde_json::from_slice(ctx).map_err(|e| (E_INPUT, e.to_string()))?;
        if ctx.kind() != ValueKind::Map {
            return Err((E_INPUT, "the context is not an object".to_string()));
        }
        let mut w = Bounded {
            buf: Vec::with_capacity(len + 1024),
            max: t.out_bytes,
        };
        let template = t.env.get_template(NAME);
        let r = template.and_then(|x| x.render_captured_to(ctx, &mut w).map(|_| ()));
        r.map_err(|e| classify(&e))?;
        Ok(w.buf)
    });
    NOW.set(ptr::null());
    code
}

/// # Safety
/// t came from tk_template_create or is NULL.
#[no_mangle]
pub unsafe extern "C" fn tk_template_destroy(t: *mut TkTemplate) {
    if !t.is_null() {
        drop(Box::from_raw(t));
    }
}

/// # Safety
/// s was filled by this library or is all zero.
#[no_mangle]
pub unsafe extern "C" fn tk_str_free(s: *mut TkStr) {
    if !(*s).ptr.is_null() {
        drop(Box::from_raw(ptr::slice_from_raw_parts_mut(
            (*s).ptr.cast::<u8>(),
            (*s).len,
        )));
    }
    (*s).ptr = ptr::null_mut();
    (*s).len = 0;
}
