#!/usr/bin/env -S lft run
-- The paper's comparison on any Pythia, with rivals.
--
--   lft run scripts/paper_table.lua -- data/teacher data/corpus/train.txt
--   lft --device cuda run scripts/paper_table.lua -- EleutherAI/pythia-410m corpus.txt --dtype bf16 --steps 80000
--
-- FM at a quarter of the layers, FW and hybrid at half, regression at both, against the best way to skip 1 to 4
-- layers; and at the same tokens and layers removed: LLM-Streamline (one inherited layer, trained by MSE, then by
-- the LM loss), ReplaceMe (a linear map, no training) and ShortGPT (layers of least influence left out). What
-- unrolls into an ordinary checkpoint are Euler steps, so FW is also trained with Euler walks, and KL through
-- three Euler steps: their columns `euler` are what an export costs.
-- The corpus is a text, or a folder that `lft data prepare` wrote. All that is trained sees the same batches.
-- `published` are the paper's figures for Pythia-410M.

local lft = require("lft")

local options = lft.options{
  valid    = {"data/corpus/valid.txt", "held-out text"},
  dtype    = {"f32", "number format of the teacher: f32, bf16 or f16"},
  steps    = {600, "training steps"},
  batch    = {2, "sequences in a batch"},
  seq_len  = {128, "tokens in a sequence"},
  lr       = {4e-3, "peak learning rate"},
  warmup   = {20, "steps of linear warm-up"},
  final    = {true, "start every flow from the block's last layer; false for random weights, as in the paper"},
  windows  = {8, "held-out windows"},
  window   = {256, "tokens in a held-out window"},
  rows     = {4, "held-out windows in a batch"},
  markdown = {"", "file that receives the table; none when empty"},
  name     = {"paper_table", "name of the run"},
}
local path, corpus = options[1] or "data/teacher", options[2] or "data/corpus/train.txt"

local teacher = lft.pythia.load(path, {dtype = options.dtype})
local layers = teacher.config.num_hidden_layers
local text = {tokenizer = teacher.tokenizer, seq_len = options.seq_len}
local manifest = io.open(corpus .. "/manifest.json")
if manifest then
  manifest:close()
  text.order = "random"
end
local train = manifest and lft.data.open(corpus, text) or lft.data.text(corpus, text)
local valid = lft.data.text(options.valid, {tokenizer = teacher.tokenizer, seq_len = options.window})
local run <close> = lft.run{name = options.name, tags = {"paper"}}

local first = layers // 4
local parts = {
  {name = "quarter", block = {first, layers // 2}, published = {fm = 0.407, ["skip-2"] = 0.529}},
  {name = "half", block = {first, 3 * layers // 4}, published = {fw = 0.736, ["skip-3"] = 0.932}},
}
local STREAMLINE = {curriculum = "regression:0.8,lm:0.2", kl_solver = "euler", kl_steps = 1}
local KL = {method = "kl", kl_solver = "euler", kl_steps = 3}
local trained = {
  quarter = {
    {"fm", {method = "fm"}}, {"regression", {method = "regression"}}, {"fw, euler", {method = "fw", solver = "euler"}},
    {"kl, euler k=3", KL}, {"LLM-Streamline", STREAMLINE, plain = true},
  },
  half = {
    {"fw", {method = "fw"}}, {"hybrid", {method = "hybrid"}}, {"regression", {method = "regression"}},
    {"fw, euler", {method = "fw", solver = "euler"}}, {"kl, euler k=3", KL},
    {"LLM-Streamline", STREAMLINE, plain = true},
  },
}

-- Train: one pass of the teacher feeds every student.

local members = {}
for _, part in ipairs(parts) do
  local m, n = part.block[1], part.block[2]
  for _, spec in ipairs(trained[part.name]) do
    local velocity = lft.flow.velocity(teacher, {
      block = part.block, plain = spec.plain,
      layer = spec.plain and m or options.final and n - 1 or nil,
    })
    local member = {
      student = lft.flow.student(teacher, {velocity = velocity}), name = spec[1],
      lr = options.lr, warmup = options.warmup,
    }
    for key, value in pairs(spec[2]) do member[key] = value end
    members[#members + 1] = member
    spec.student = member.student
  end
end
local tokens = lft.train.together(members, {
  data = train, batch = options.batch, steps = options.steps, run = run, label = "training",
})[1].tokens

-- Evaluate.

local rows = {}

--- Adds a row and logs its metrics; `column` is the integration they belong to.
local function note(row, column, metrics)
  row[column] = metrics.kl
  if not row.best or metrics.kl < row.best then
    row.best, row.nmse, row.ppl, row.at = metrics.kl, metrics.nmse, metrics.ppl, column
  end
  local solver, k = column:match("^(%a+) (%d)$")
  run:log{
    kind = row.kind, part = row.part, block = row.block, method = row.method, label = row.method, solver = solver,
    k = k and math.tointeger(k), kl = metrics.kl, nmse = metrics.nmse, ppl = metrics.ppl,
    teacher_ppl = metrics.teacher_ppl, nfe = metrics.nfe, eval_tokens = metrics.tokens,
    train_tokens = row.tokens, layers_removed = row["layers removed"], params_removed = row["params removed"],
  }
end

local function new_row(part, method, removed, params, seen, kind)
  local row = {
    part = part.name, block = ("{%d,%d}"):format(part.block[1], part.block[2]), method = method, kind = kind,
    ["layers removed"] = removed, ["params removed"] = params, tokens = seen,
    published = part.published[method],
  }
  rows[#rows + 1] = row
  return row
end

local windows = {data = valid, windows = options.windows, batch = options.rows}
local function reference(block)
  windows.block = block
  return lft.eval.reference(teacher, windows)
end

local whole = reference{0, layers}
local influence = lft.rivals.distances(teacher, {data = train}):least_influential()
for _, part in ipairs(parts) do
  local m, n = part.block[1], part.block[2]
  local removed = n - m - 1
  local own = reference(part.block)
  local function skip_params(count) return lft.flow.skip(teacher, {from = m, count = count}).parameters_removed end
  local skips = {}
  for count = 1, math.min(4, n - m) do
    local best
    for from = m, n - count do
      local metrics = own:skip{from = from, count = count}
      if not best or metrics.kl < best.kl then best = metrics end
    end
    skips[count] = best.kl
    note(new_row(part, "skip-" .. count, count, skip_params(count), 0, "skip"), "no flow", best)
  end
  for _, spec in ipairs(trained[part.name]) do
    local student = spec.student
    local row = new_row(part, spec[1], removed, student.parameters_removed, tokens, "flow")
    if spec.plain then
      note(row, "euler 1", student:evaluate{data = own, solver = "euler", steps = 1})
    else
      for _, solver in ipairs{"euler", "midpoint"} do
        for k = 1, 3 do note(row, solver .. " " .. k, student:evaluate{data = own, solver = solver, steps = k}) end
      end
    end
  end
  local short = lft.rivals.replace_me(teacher, {block = part.block, data = train})
  note(new_row(part, "ReplaceMe", removed, skip_params(removed), 0, "rival"), "no flow",
    own:evaluate(function(x0) return short:run(x0:to{dtype = options.dtype}, m, m + 1) end))
  local left_out = table.move(influence, 1, removed, 1, {})
  local pruned = teacher:without(left_out)
  note(new_row(part, "ShortGPT", removed, skip_params(removed), 0, "rival"), "no flow",
    whole:evaluate(function(x0) return pruned:run(x0:to{dtype = options.dtype}, 0, layers - removed) end))
  -- The paper holds a quarter against skip-2 and half against skip-3.
  local bar = skips[part.name == "quarter" and 2 or 3]
  for _, row in ipairs(rows) do
    if row.part == part.name then row["best / skip"] = bar and row.best / bar end
  end
end

-- Show.

local columns = {
  "block", "method", "layers removed", "params removed", "euler 1", "euler 2", "euler 3", "midpoint 1",
  "midpoint 2", "midpoint 3", "best", "best / skip", "nmse", "ppl", "published",
}
print(("%s: teacher perplexity %.2f; %d training steps, %d tokens; KL on %d windows of %d tokens"):format(
  path, whole.teacher_ppl, options.steps, tokens, options.windows, options.window))
print("skip: the best position; best / skip: relative to skip-2 at a quarter, skip-3 at half; published: Pythia-410M")
lft.table(rows, {columns = columns})

--- The table as Markdown.
local function markdown()
  local lines = {"| " .. table.concat(columns, " | ") .. " |", "|" .. ("---|"):rep(#columns)}
  for _, row in ipairs(rows) do
    local cells = {}
    for i, column in ipairs(columns) do
      local value = row[column]
      cells[i] = value == nil and "" or math.type(value) == "float" and ("%.4g"):format(value) or tostring(value)
    end
    lines[#lines + 1] = "| " .. table.concat(cells, " | ") .. " |"
  end
  return table.concat(lines, "\n") .. "\n"
end
if options.markdown ~= "" then
  local file <close> = assert(io.open(options.markdown, "w"))
  file:write(markdown())
end
