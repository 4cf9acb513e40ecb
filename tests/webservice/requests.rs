//! Who may run the command, and what it is asked for: command line, service.template, service.manifest, the site's defaults.

use std::fs;

use crate::site::Site;

#[test]
fn only_accounts_of_tools_run_it() {
    let Some(mut site) = Site::new() else { return };
    for (account, uid, words) in [
        ("alice", 60_000, "you are \"alice\" (uid 60000), but webservice runs as a tool's account"),
        ("tools.low", 49_999, "you are \"tools.low\" (uid 49999)"),
        ("toolsbeta.hello", 50_002, "`become TOOL`, then `webservice` again"),
        ("tools.", 50_002, "you are \"tools.\""),
    ] {
        site.become_user(account, uid);
        for action in ["start", "stop", "status", "restart", "logs", "shell"] {
            let refused = site.run(&[action]).fails(words);
            assert_eq!(refused.answer, "", "{action}");
        }
    }
    assert_eq!(site.grid_log(), [""; 0]);
    site.run(&["--types"]).succeeds();
    site.become_user("tools.hello", crate::site::UID);
    fs::remove_dir_all(site.path("home")).unwrap();
    site.run(&["start"]).fails("is not an accessible directory");
    fs::write(site.path("home"), "").unwrap();
    site.run(&["start"]).fails("is not a directory");
}

#[test]
fn usage_errors_exit_64() {
    let Some(site) = Site::new() else { return };
    for (args, words) in [
        (&[][..], "Usage: webservice [OPTIONS] [TYPE] start"),
        (&["strat"], "did you mean \"start\""),
        (&["lighttpd"], "no action behind \"lighttpd\""),
        (&["--backend", "grid", "start"], "expected \"gridengine\" or \"kubernetes\""),
        (&["generic", "start", "./server", "--port"], "-- --port"),
        (&["stop", "--wait"], "--wait is for start and restart only"),
        (&["--replicas", "none", "start"], "none"),
        (&["--timeout", "soon", "start"], "invalid duration \"soon\""),
    ] {
        let mut args: Vec<&str> = args.to_vec();
        if args.is_empty() {
            args.push("--json");
        }
        let refused = site.run(&args);
        assert_eq!((refused.status, &*refused.answer), (64, ""), "{args:?}: {refused:?}");
        assert!(refused.messages.contains(words) || args == ["--json"], "{args:?}: {refused:?}");
    }
    assert_eq!(site.grid_log(), [""; 0]);
}

#[test]
fn unknown_types_are_answered_with_the_nearest_and_all() {
    let Some(site) = Site::new() else { return };
    let refused = site.run(&["lightttpd", "start"]).fails("unknown type \"lightttpd\", did you mean \"lighttpd\"?");
    assert!(refused.messages.contains("\n    nodejs") && refused.messages.contains("npm start"), "{refused:?}");
    let types = site.run(&["--types"]).succeeds().answer;
    assert!(types.lines().any(|line| line.starts_with("nodejs ") && line.contains("npm start")), "{types}");
    site.configure("types: {php5: {command: [php5], backends: [kubernetes]}}");
    site.run(&["php5", "start"]).fails("type \"php5\" does not run on gridengine");
    assert_eq!(site.grid_log(), [""; 0]);
}

#[test]
fn options_of_kubernetes_are_refused_on_the_grid() {
    let Some(site) = Site::new() else { return };
    for (args, words) in [
        (&["--mem", "1Gi", "start"][..], "--mem is for kubernetes only"),
        (&["-c", "1", "start"], "--cpu is for kubernetes only"),
        (&["-r", "2", "restart"], "--replicas is for kubernetes only"),
        (&["shell"], "shell is for kubernetes only"),
        (&["--buildservice-image", "x", "start"], "--buildservice-image is for kubernetes only"),
    ] {
        site.run(args).fails(words);
    }
    assert_eq!(site.grid_log(), [""; 0]);
}

#[test]
fn another_backend_needs_a_stop_first() {
    let Some(site) = Site::new() else { return };
    site.run(&["start"]).succeeds();
    for action in ["start", "stop", "restart", "status", "logs"] {
        let refused = site.run(&["--backend=kubernetes", action]);
        let refused = refused
            .fails("the backend is kubernetes, but service.manifest says that your web service is on gridengine");
        assert!(refused.messages.contains("`webservice --backend=gridengine stop`"), "{refused:?}");
    }
    assert_eq!(site.jobs().len(), 1);
    site.run(&["--backend=gridengine", "stop"]).succeeds();
    site.run(&["--backend=kubernetes", "generic", "start", "x"]).fails(".kube/config");
}

#[test]
fn template_is_found_in_four_places_and_once() {
    let Some(site) = Site::new() else { return };
    let places = [
        "service.template",
        "www/python/src/service.template",
        "www/js/service.template",
        "public_html/service.template",
    ];
    for place in places {
        site.write(place, "backend: gridengine\ntype: generic\nextra_args: [./server, 'a b']\nrelease: bookworm\n");
        let started = site.run(&["start"]).succeeds();
        assert_eq!(started.messages.lines().count(), 1, "no warning of a default: {started:?}");
        assert_eq!(
            site.submitted().split_off(22),
            ["--type", "generic", "./server", "a b"][..],
            "{place}: {:?}",
            site.submitted()
        );
        site.run(&["stop"]).succeeds();
        fs::remove_file(site.home(place)).unwrap();
    }
    site.forget_grid_log();
    site.write(places[0], "");
    site.write(places[2], "");
    let refused = site.run(&["start"]).fails("there is more than one service.template");
    assert!(
        refused.messages.contains(&format!("{:?}, {:?}", site.home(places[0]), site.home(places[2]))),
        "{refused:?}"
    );
    fs::remove_file(site.home(places[2])).unwrap();
    site.write("my.yaml", "type: generic\nextra_args: [x]\nmemory: 1\n");
    let own = site.home("my.yaml").display().to_string();
    let started = site.run(&["--template", &own, "start"]).succeeds();
    assert!(
        started.messages.contains("unknown key \"memory\" is ignored, expected one of backend, release"),
        "{started:?}"
    );
    assert_eq!(site.job_names(), ["generic-hello"]);
    site.run(&["--template", "/nowhere", "status"]).fails("there is no template \"/nowhere\"");
}

#[test]
fn stop_finds_the_job_of_any_known_type() {
    let Some(site) = Site::new() else { return };
    site.add_job("uwsgi-plain-hello", "r", "2026-01-01T00:00:00");
    site.add_job("backup-hello", "r", "2026-01-01T00:00:00");
    site.add_job("uwsgi-plain-other", "r", "2026-01-01T00:00:00");
    let status = site.run(&["status"]).succeeds().answer;
    assert_eq!(status, "Your webservice of type uwsgi-plain is running on backend gridengine\n");
    site.run(&["start"]).fails("Your job is already running");
    site.run(&["stop"]).succeeds();
    assert_eq!(site.grid_log(), ["deleted uwsgi-plain-hello"]);
    assert_eq!(site.jobs().len(), 2);
    // A type that only the manifest knows.
    site.add_job("tomcat-hello", "r", "2026-01-01T00:00:00");
    site.write("service.manifest", "web: tomcat\nversion: 2\n");
    site.run(&["stop"]).succeeds();
    assert_eq!(site.grid_log().last().unwrap(), "deleted tomcat-hello");
}
