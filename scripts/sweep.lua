#!/usr/bin/env -S lft run
-- Which learning rate, and how many steps should a walk have in training?
--
-- A grid of both. All points read the same batches, so they are trained side by side on one pass of the teacher.
-- Interrupt it and start it again: finished points are kept, and only the others are run.

local lft = require("lft")

local options = lft.options{
  teacher = {"data/teacher", "folder or hub id of the model"},
  train   = {"data/corpus/train.txt", "text to train on"},
  valid   = {"data/corpus/valid.txt", "held-out text"},
  block   = {{6, 12}, "m,n: the layers m to n - 1 are replaced"},
  lrs     = {{2e-3, 4e-3, 8e-3}, "peak learning rates"},
  walks   = {{1, 2, 3}, "steps of a walk in training"},
  steps   = {100, "training steps"},
  batch   = {2, "sequences in a batch"},
  seq_len = {128, "tokens in a sequence"},
  layer   = {11, "teacher layer whose weights every flow starts from; -1 draws them at random"},
  windows = {8, "held-out sequences to evaluate on"},
  at_once = {9, "points that are trained side by side"},
  name    = {"sweep", "name of the sweep"},
  report  = {"reports/sweep.html", "where the report goes"},
}

local teacher = lft.pythia.load(options.teacher)
local text = {tokenizer = teacher.tokenizer, seq_len = options.seq_len}
local train, valid = lft.data.text(options.train, text), lft.data.text(options.valid, text)
local reference = lft.eval.reference(teacher, {
  data = valid, block = options.block, windows = options.windows, batch = options.batch,
})

local points = lft.sweep{
  name = options.name,
  grid = {lr = options.lrs, walk = options.walks},
  at_once = options.at_once,
  run = function(config, run)
    local velocity = lft.flow.velocity(teacher, {
      block = options.block, layer = options.layer >= 0 and options.layer or nil,
    })
    local student = lft.flow.student(teacher, {velocity = velocity})
    student:train{
      method = "fw", walk = config.walk, lr = config.lr, warmup = 20,
      data = train, steps = options.steps, batch = options.batch, run = run,
    }
    local metrics = student:evaluate{data = reference, solver = "midpoint", steps = 2}
    return {
      method = "fw", solver = "midpoint", k = 2,
      kl = metrics.kl, nmse = metrics.nmse, ppl = metrics.ppl, nfe = metrics.nfe, tokens = metrics.tokens,
    }
  end,
}

local rows, ids = {}, {}
for i, point in ipairs(points) do
  ids[i] = point.run_id
  if point.status == "finished" then
    local row = {kept = point.kept}
    for _, values in ipairs{point.result, point.config} do
      for name, value in pairs(values) do row[name] = value end
    end
    rows[#rows + 1] = row
  end
end
table.sort(rows, function(a, b) return a.kl < b.kl end)
print(("%d points, %d failed, %d teacher passes"):format(#points, points.failed, points.teacher_passes))
lft.table(rows, {columns = {"lr", "walk", "kl", "nmse", "ppl", "kept"}})
print("report: " .. lft.report{runs = ids, title = options.name, output = options.report})
