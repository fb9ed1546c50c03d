//! Compiles the C files of `src` against the headers of the interpreter that pyo3 builds for, and lays what
//! the wheel has for one version of Python alone.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The include directory of `python`, as it says itself.
fn include_dir(python: &str) -> Option<PathBuf> {
    let script = "import sysconfig; print(sysconfig.get_path('include'))";
    let out = Command::new(python).args(["-c", script]).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let dir = PathBuf::from(text.trim());
    dir.join("Python.h").exists().then_some(dir)
}

/// Has the functions of `src/guards.c` linked in the place of those that they call.
fn guard(include: &Path) {
    cc::Build::new()
        .file("src/guards.c")
        .include(include)
        .opt_level(2)
        .flag("-fexceptions")
        .flag("-ffunction-sections")
        .compile("gevent_guards");
    let source = std::fs::read_to_string("src/guards.c").expect("it was just compiled");
    let names = source.lines().filter_map(|line| {
        let (before, after) = line.split_once('(')?;
        match before {
            "GIVES" => after.split(", ").nth(1),
            "GIVES_NOTHING" => after.split(", ").next(),
            // A function of its own, such as a variadic one.
            other => Some(other.split_once(" __wrap_")?.1),
        }
    });
    for name in names {
        println!("cargo:rustc-link-arg=-Wl,--wrap={name}");
    }
}

/// Lays greenlet's header where the wheel takes it from: to be installed where the wheel of the real greenlet has
/// it, in a virtual environment (`include/site`) and outside of one. Both paths name the version of Python.
fn lay_header() -> std::io::Result<()> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    let header = python.join("gevent/_greenlet/greenlet.h");
    println!("cargo:rerun-if-changed={}", header.display());
    let text = std::fs::read(header)?;
    let version = pyo3_build_config::get().version();
    let version = format!("python{}.{}", version.major, version.minor);
    let data = python.join("wheel-data/data");
    let at = ["include", "include/site"]
        .map(|folder| data.join(folder).join(&version).join("greenlet/greenlet.h"));
    for path in &at {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    if at
        .iter()
        .all(|path| std::fs::read(path).is_ok_and(|there| there == text))
    {
        return Ok(());
    }
    // Those of another version of Python.
    let _ = std::fs::remove_dir_all(&data);
    for path in at {
        std::fs::create_dir_all(path.parent().expect("it is in a folder"))?;
        std::fs::write(path, &text)?;
    }
    Ok(())
}

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    println!("cargo:rerun-if-changed=src/shim.c");
    println!("cargo:rerun-if-changed=src/barrier.c");
    println!("cargo:rerun-if-changed=src/frames.c");
    println!("cargo:rerun-if-changed=src/bound.c");
    println!("cargo:rerun-if-changed=src/outlive.c");
    println!("cargo:rerun-if-changed=src/guard.h");
    println!("cargo:rerun-if-changed=src/guards.c");
    println!("cargo:rerun-if-changed=build.rs");
    for name in [
        "PYO3_PYTHON",
        "GEVENT_PYTHON_INCLUDE",
        "VIRTUAL_ENV",
        "PATH",
    ] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    if let Err(error) = lay_header() {
        println!("cargo:warning=the wheel will be without greenlet's header: {error}");
    }
    // A cross build, or one with a pyo3 configuration file, names the headers itself.
    let include = std::env::var_os("GEVENT_PYTHON_INCLUDE")
        .map(PathBuf::from)
        .or_else(|| include_dir(&std::env::var("PYO3_PYTHON").ok()?))
        .or_else(|| include_dir(&format!("{}/bin/python3", std::env::var("VIRTUAL_ENV").ok()?)))
        .or_else(|| include_dir("python3"))
        .or_else(|| include_dir("python"))
        .expect("no Python.h: set PYO3_PYTHON to the interpreter to build for, or GEVENT_PYTHON_INCLUDE");
    cc::Build::new()
        .file("src/shim.c")
        .file("src/frames.c")
        .file("src/bound.c")
        .include(&include)
        .include(include.join("internal"))
        .opt_level(3)
        .flag_if_supported("-fno-plt")
        .flag_if_supported("-fno-strict-aliasing")
        .flag_if_supported("-Wno-unused-function")
        .warnings(false)
        .compile("gevent_shim");
    cc::Build::new()
        .file("src/barrier.c")
        .include(&include)
        .opt_level(2)
        .flag_if_supported("-fno-exceptions")
        .flag_if_supported("-fno-unwind-tables")
        .flag_if_supported("-fno-asynchronous-unwind-tables")
        .compile("gevent_barrier");
    cc::Build::new()
        .file("src/outlive.c")
        .include(&include)
        .opt_level(2)
        .flag_if_supported("-fexceptions")
        .compile("gevent_outlive");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu")
        && pyo3_build_config::get().version().minor < 14
    {
        guard(&include);
    }
}
