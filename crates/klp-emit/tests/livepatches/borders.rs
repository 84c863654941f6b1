//! References that may mean the end of one variable or the start of the next.

use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;

const SECTION: &str = "__attribute__((section(\".data..read_mostly\")))";

/// Handlers in a shared section, and a loop over all of them; `before` and `behind` surround them.
fn unit(before: &str, behind: &str, condition: &str) -> String {
    format!(
        "struct handler {{ void (*fn)(int); int id; }};
         static int limit {SECTION} = 5; {before}
         static struct handler handlers[4] {SECTION}; {behind}
         int set(int i, void (*fn)(int)) {{ handlers[i].fn = fn; return limit++; }}
         void run_all(int x) {{ for (int i = 0; i < 4; i++) if (handlers[i].fn {condition}) handlers[i].fn(x); }}"
    )
}

fn codes(original: &str, patched: &str) -> Vec<&'static str> {
    let kernel = Kernel { exports: vec!["__fentry__"], ..Kernel::default() };
    Builds::new(original, patched).codes("vmlinux", &kernel)
}

/// GCC orders variables as in the file or in reverse, so in one of the two texts `more` comes after the handlers.
fn with(more: &str, condition: &str) -> [String; 2] {
    [unit(more, "", condition), unit("", more, condition)]
}

#[test]
fn a_new_variable_behind_an_array_makes_its_end_doubtful() {
    let original = unit("", "", "");
    let more = format!("static int verbose {SECTION} = 1; int knob(int v) {{ return verbose = v; }}");
    let found: Vec<_> =
        with(&more, "&& (verbose || x)").iter().map(|patched| codes(&original, patched)).collect();
    assert!(found.iter().any(|codes| codes.contains(&"klpx::border-reference")), "{found:?}");
    assert!(found.iter().flatten().all(|code| *code == "klpx::border-reference"), "{found:?}");
}

#[test]
fn the_border_of_two_variables_of_the_kernel_is_one_place() {
    let more = format!("static int verbose {SECTION} = 1; int knob(int v) {{ return verbose = v; }}");
    for (original, patched) in with(&more, "").iter().zip(with(&more, "&& x > 3")) {
        assert_eq!(codes(original, &patched), [""; 0], "{patched}");
    }
}

#[test]
fn variables_that_come_to_lie_side_by_side_did_not_before() {
    let verbose = format!("static int verbose {SECTION} = 1; int knob(int v) {{ return verbose = v; }}");
    let gap = format!("static int gap {SECTION} = 1; int set_gap(int v) {{ return gap = v; }}");
    // In either order of GCC, the gap is between the handlers and the variable that follows them.
    let texts = |first: &str, second: &str, condition: &str| {
        [unit(&format!("{second}{first}"), "", condition), unit("", &format!("{first}{second}"), condition)]
    };
    let pairs = texts(&gap, &verbose, "").into_iter().zip(texts(
        "int set_gap(int v) { return v; }",
        &verbose,
        "&& x > 3",
    ));
    let found: Vec<_> = pairs.map(|(original, patched)| codes(&original, &patched)).collect();
    assert!(found.iter().any(|codes| codes.contains(&"klpx::border-reference")), "{found:?}");
}

#[test]
fn what_is_read_is_no_end() {
    let original = unit("", "", "");
    let more = format!("static int verbose {SECTION} = 1; int knob(int v) {{ return verbose = v; }}");
    // `run_all` stays unchanged; the module contains only reads and writes of the new variable.
    let read = |text: &str| text.replace("return limit++;", "return limit++ + verbose;");
    let order = with(&more, "").map(|text| codes(&original, &read(&text)));
    assert!(order.iter().any(Vec::is_empty), "{order:?}");
}

#[test]
fn what_a_macro_defines_one_by_one_has_no_end_that_matters() {
    let text = |more: &str| {
        let message = |n: u32| {
            format!(
                "{{ static struct {{ const char *text; long flags; }} __UNIQUE_ID_ddebug{n}
                 __attribute__((section(\"__dyndbg\"), used)) = {{ \"m{n}\" }}; tell(&__UNIQUE_ID_ddebug{n}); }}"
            )
        };
        let messages = [message(1), more.to_owned(), message(2), message(3)].concat();
        format!("extern void tell(void *); void f(int x) {{ {messages} }}").replace("MORE", &message(7))
    };
    let kernel = Kernel { exports: vec!["__fentry__"], defined: vec!["tell"], ..Kernel::default() };
    assert_eq!(Builds::new(&text(""), &text("MORE")).codes("vmlinux", &kernel), [""; 0]);
}
