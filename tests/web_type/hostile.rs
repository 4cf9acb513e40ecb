//! Homes that a tenant, or an odd account, made difficult.

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use crate::tool::Tool;

#[test]
fn odd_names_of_the_home_are_quoted() {
    if Tool::with_programs(&["lighttpd", "php-cgi", "uwsgi"]).is_none() {
        return;
    }
    for name in ["it's a \"home\" $HOME `x` #1", r#"back\slash \" +"#, "caf\u{e9} {port}"] {
        let Some(tool) = Tool::with_home(name) else { return };
        tool.write("public_html/index.html", "front");
        tool.write("public_html/page.php", "<?php echo 6 * 7;");
        let server = tool.start(&["--type", "lighttpd"]);
        assert_eq!(server.get("/hello/"), (200, "front".into()), "{name}");
        assert_eq!(server.get("/hello/page.php"), (200, "42".into()), "{name}");
    }
    for name in ["it's a \"home\" #1", "caf\u{e9}"] {
        let Some(tool) = Tool::with_home(name) else { return };
        let app = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'wsgi']\n";
        tool.write("www/python/src/app.py", app);
        let server = tool.start(&["--type", "uwsgi-python"]);
        assert_eq!(server.get("/hello/"), (200, "wsgi".into()), "{name}");
    }
}

#[test]
fn unusable_own_configuration_is_refused() {
    let Some(tool) = Tool::create() else { return };
    tool.mkdir("public_html");
    let own = tool.home().join(".lighttpd.conf");
    for (what, why) in [
        ("fifo", "it is not a regular file"),
        ("directory", "it is not a regular file"),
        ("device", "it is not a regular file"),
        ("huge", "it has more than 1048576 bytes"),
        ("unreadable", "Permission denied"),
    ] {
        match what {
            "fifo" => tool.make_fifo(".lighttpd.conf"),
            "directory" => fs::create_dir(&own).unwrap(),
            "device" => symlink("/dev/zero", &own).unwrap(),
            "huge" => File::create(&own).unwrap().set_len(1 << 30).unwrap(),
            _ => symlink("/etc/shadow", &own).unwrap(),
        }
        for action in [&["--no-error-log"][..], &["--print-config"]] {
            let ended = tool.run(&[&["--type", "lighttpd"], action].concat());
            assert_eq!((ended.status, &*ended.out), (Some(78), ""), "{what}: {ended:?}");
            let want = format!("{own:?} cannot be read: {why}");
            assert!(ended.error.contains(&want), "{what}: {}", ended.error);
        }
        tool.wait_for_nothing_left();
        let _ = fs::remove_file(&own).or_else(|_| fs::remove_dir(&own));
    }
}

#[test]
fn unusable_package_is_refused() {
    let Some(tool) = Tool::create() else { return };
    let package = tool.at("www/js/package.json");
    for (what, why) in
        [("fifo", "not a regular file"), ("directory", "not a regular file"), ("huge", "more than 1048576 bytes")]
    {
        match what {
            "fifo" => tool.make_fifo("www/js/package.json"),
            "directory" => fs::create_dir(&package).unwrap(),
            _ => File::create(&package).unwrap().set_len(1 << 30).unwrap(),
        }
        let ended = tool.run(&["--type", "nodejs"]);
        assert!(ended.status == Some(78) && ended.error.contains(why), "{what}: {ended:?}");
        let _ = fs::remove_file(&package).or_else(|_| fs::remove_dir(&package));
    }
}

#[test]
fn missing_home_is_an_error_for_types_that_need_it() {
    let Some(tool) = Tool::create() else { return };
    fs::remove_dir(tool.home()).unwrap();
    let ended = tool.run(&["--type", "lighttpd"]);
    assert!(ended.status == Some(78) && ended.error.contains("public_html"), "{ended:?}");
    let ended = tool.run(&["sh", "-c", "pwd"]);
    assert_eq!((ended.status, &*ended.out), (Some(0), "/\n"), "{ended:?}");
}
