-- What `recompute` costs and saves: some steps of flow walking on half of the teacher's layers.
--
-- The peak is the whole process's: hold the runs with and without against each other.
--   /usr/bin/time -v lft --device cpu run benches/walk_memory.lua -- --recompute

local lft = require("lft")

local options = lft.options{
  teacher   = {"data/teacher", "folder or hub id of the model"},
  text      = {"data/corpus/valid.txt", "text to train on"},
  block     = {{6, 18}, "m,n: the layers m to n - 1 are replaced"},
  recompute = {false, "computes activations again in the backward pass"},
  batch     = {16, "sequences in a batch"},
  seq_len   = {256, "tokens in a sequence"},
  steps     = {6, "training steps"},
}

local teacher = lft.pythia.load(options.teacher)
local text = lft.data.text(options.text, {tokenizer = teacher.tokenizer, seq_len = options.seq_len})
local result = lft.flow.student(teacher, {block = options.block}):train{
  method = "fw", data = text, batch = options.batch, steps = options.steps, recompute = options.recompute,
}
print(("recompute %s: %d tokens in %.1f s, loss %.6f"):format(
  options.recompute, result.tokens, result.seconds, result.loss))
