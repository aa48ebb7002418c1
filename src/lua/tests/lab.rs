//! Benchmarks and sweeps in scripts.

use super::{message, run};

const TEACHER: &str = "local m = lft.pythia.load('data/teacher')
     local d = lft.data.text('data/corpus/valid.txt', {tokenizer = m.tokenizer, seq_len = 8})
     local function student() return lft.flow.student(m, {block = {6, 8}, seed = 1}) end ";

#[test]
fn evaluations_are_counted_wherever_fields_are_evaluated() {
    run(&format!(
        "{TEACHER}
         local u = lft.flow.velocity(m, {{block = {{6, 8}}, init = 'teacher'}})
         local x = m:hidden({{{{1, 2}}}}, 6)
         local once = {{warmup = 0, samples = 2}}
         local function nfe(f) return lft.bench('f', once, f).nfe end
         assert(nfe(function() u(x, 0.5) end) == 1)
         assert(nfe(function() lft.ode.solve(u, x, {{method = 'heun', steps = 3}}) end) == 6)
         -- A function around the field is one evaluation, not two.
         assert(nfe(function() lft.ode.solve(function(x, t) return u(x, t) end, x, {{method = 'euler', steps = 3}}) end) == 3)
         assert(nfe(function() student():train{{method = 'fw', walk = 3, data = d, steps = 2, batch = 1}} end) == 12)
         assert(nfe(function() end) == 0)"
    ));
}

#[test]
fn comparisons_find_the_slower_and_keep_both_rows() {
    run("local function counts(to) return function() for _ = 1, to do end end end
         local names = {'short', 'long'}
         local r = lft.bench.compare{a = counts(1e4), b = counts(1e6), samples = 8, warmup = 1, name = 'pair', names = names}
         assert(r.outcome == 'slower' and r.ratio > 2 and r.ci.lo > 1 and r.a.median < r.b.median, r.verdict)
         assert(r.verdict:find('^long is slower than short: it takes'), r.verdict)
         local rows = lft.query('SELECT name, ratio, against FROM benchmarks ORDER BY name')
         assert(#rows == 2 and rows[1].name == 'pair/long' and rows[1].against == 'pair/short' and rows[1].ratio == r.ratio)
         assert(rows[2].ratio == nil)");
}

#[test]
fn mistakes_in_benchmarks_are_named_and_errors_of_the_function_pass() {
    for (code, says) in [
        (
            "lft.bench('x', {sample = 1}, print)",
            "script.lua:1: lft.bench.__call: unknown option 'sample' (did you mean 'samples'?)",
        ),
        ("lft.bench('x', {samples = 0}, print)", "option 'samples' must be at least 1"),
        (
            "lft.bench('x', {throughput = {-1, 'tokens'}}, print)",
            "option 'throughput': expected a positive amount",
        ),
        ("lft.bench('x', {})", "argument 3 (f) is missing: expected function"),
        ("lft.bench.compare{a = print}", "option 'b' is missing"),
        ("lft.bench.compare{a = print, b = print, names = {'x', 'x'}}", "both are called 'x'"),
        ("lft.bench('x', {}, function() error('mine') end)", "script.lua:1: mine"),
    ] {
        let found = message(code);
        assert!(found.contains(says), "{code}\n{found}\nlacks {says:?}");
    }
}

#[test]
fn a_sweep_costs_one_teacher_pass_and_every_student_ends_as_if_alone() {
    run(&format!(
        "{TEACHER}
         local function loss(config, run)
           return student():train{{method = config.method, lr = config.lr, data = d, steps = 4, batch = 2, run = run}}.loss
         end
         local points = lft.sweep{{name = 's', grid = {{method = {{'fm', 'fw'}}, lr = {{1e-3, 3e-3}}}}, run = function(config, run)
           return {{loss = loss(config, run)}}
         end}}
         assert(#points == 4 and points.failed == 0 and points.teacher_passes == 4, points.teacher_passes)
         for _, point in ipairs(points) do
           assert(point.result.loss == loss(point.config) and not point.kept and point.status == 'finished')
         end
         -- Another seed is other batches; a second training of each point comes after the first ones.
         local twice = lft.sweep{{name = 't', grid = {{seed = {{1, 2}}, lr = {{1e-3, 3e-3}}}}, run = function(config)
           local s = student()
           local options = {{method = 'fm', lr = config.lr, seed = config.seed, data = d, steps = 3, batch = 2}}
           s:train(options)
           s:train(options)
         end}}
         assert(twice.teacher_passes == 2 * 2 * 3, twice.teacher_passes)
         local curves = lft.query(\"SELECT run, count(step) AS n FROM training WHERE run LIKE 's/%' GROUP BY run\")
         assert(#curves == 4 and curves[1].n == 4)
         local rows = lft.query(\"SELECT method, lr, loss FROM results WHERE run LIKE 's/%' AND latest\")
         assert(#rows == 4 and rows[1].method and rows[1].lr and rows[1].loss)"
    ));
}

#[test]
fn points_that_fail_do_not_stop_the_others() {
    run(&format!(
        "{TEACHER}
         local function point(config)
           if config.how == 'raises' then error('mine') end
           if config.how == 'yields' then coroutine.yield() end
           if config.how == 'returns' then return 5 end
           local lr = config.how == 'diverges' and 1e30 or 1e-3
           local method = config.how == 'misspells' and 'fv' or 'fm'
           local ok, caught = true, nil
           if config.how == 'catches' then
             ok, caught = pcall(student().train, student(), {{method = 'fv', data = d}})
           else
             student():train{{method = method, lr = lr, clip = 1e30, warmup = 0, data = d, steps = 3, batch = 2}}
           end
           return {{ok = ok}}
         end
         local points = lft.sweep{{name = 'f', run = point, grid = {{
           how = {{'raises', 'yields', 'returns', 'diverges', 'misspells', 'catches', 'trains'}},
         }}}}
         local errors = {{}}
         for _, p in ipairs(points) do errors[p.config.how] = p.error end
         assert(points.failed == 5 and errors.trains == nil and errors.catches == nil)
         assert(errors.raises:find('script.lua:%d+: mine') and errors.yields:find('must not yield'))
         assert(errors.returns:find('must return a row or nothing'), errors.returns)
         assert(errors.diverges:find('script.lua:%d+: Student:train: .*diverged at step'), errors.diverges)
         assert(errors.misspells:find('script.lua:%d+: Student:train: .*did you mean \"fm\"'), errors.misspells)
         -- What failed is tried again, what finished is kept.
         local again = lft.sweep{{name = 'f', grid = {{how = {{'catches', 'raises', 'trains'}}}}, run = function() end}}
         assert(again[1].kept and not again[2].kept and again[2].status == 'finished' and again[3].kept)
         assert(again[1].result.ok == false)
         assert(not lft.sweep{{name = 'f', again = true, grid = {{how = {{'trains'}}}}, run = function() end}}[1].kept)"
    ));
}

#[test]
fn random_points_are_drawn_and_mistakes_in_sweeps_are_named() {
    run("local seen = {}
         local space = {lr = {min = 1e-4, max = 1e-2, log = true}, walk = {min = 1, max = 3}, block = {{6, 8}, {6, 12}}}
         local points = lft.sweep{name = 'r', random = space, samples = 5, seed = 3, run = function(config)
           assert(math.type(config.walk) == 'integer' and config.walk >= 1 and config.walk <= 3)
           assert(config.lr >= 1e-4 and config.lr <= 1e-2 and config.block[1] == 6)
         end}
         assert(#points == 5 and points.failed == 0, points[1].error)
         local more = lft.sweep{name = 'r', random = space, samples = 7, seed = 3, run = function() end}
         assert(more[5].kept and not more[6].kept, 'a longer sweep goes on')");
    let f = "run = function() end";
    for (code, says) in [
        (format!("lft.sweep{{{f}}}"), "one of the options 'grid' and 'random' must be given"),
        (format!("lft.sweep{{grid = {{lr = 3}}, {f}}}"), "option 'grid'"),
        (format!("lft.sweep{{grid = {{lr = {{}}}}, {f}}}"), "'lr' has no values"),
        (format!("lft.sweep{{grid = {{lr = {{print}}}}, {f}}}"), "cannot be kept with a point"),
        (format!("lft.sweep{{random = {{lr = {{min = 1}}}}, {f}}}"), "option 'max' is missing"),
        (
            format!("lft.sweep{{random = {{lr = {{min = 1, max = 2, lgo = true}}}}, {f}}}"),
            "did you mean 'log'?",
        ),
        (format!("lft.sweep{{grid = {{lr = {{1}}}}, samples = 3, {f}}}"), "belongs to random"),
        ("lft.sweep{grid = {lr = {1}}}".to_owned(), "option 'run' is missing"),
    ] {
        let found = message(&code);
        assert!(found.starts_with("script.lua:1: lft.sweep: ") && found.contains(says), "{code}\n{found}");
    }
}
