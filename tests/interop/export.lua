#!/usr/bin/env -S lft run
-- Exports a student and writes the logits that it gives, for read_export_with_transformers.py.
--
--   lft run tests/interop/export.lua -- --out /tmp/export

local lft = require("lft")

local options = lft.options{
  teacher     = {"data/teacher", "folder of the model"},
  block       = {{6, 12}, "m,n: the layers m to n - 1 are replaced"},
  steps       = {3, "Euler steps, each of which becomes a layer"},
  shard_bytes = {4000000, "largest size of a weight file"},
  noise       = {0.05, "deviation of the noise on every weight, so that all time conditioning is at work"},
  out         = {"export", "folder to write"},
}
local teacher = lft.pythia.load(options.teacher)
local u = lft.flow.velocity(teacher, {block = options.block, init = "teacher", rank = 4})
for _, weight in pairs(u:parameters()) do
  weight:set(weight + options.noise * lft.randn(weight:shape(), {seed = 1}))
end
local student = lft.flow.student(teacher, {velocity = u})
local ids = lft.arange(1, 65):reshape(2, 32):to{dtype = "u32"}
student:export(options.out, {steps = options.steps, shard_bytes = options.shard_bytes})
lft.safetensors.save(options.out .. "/expected.safetensors", {
  ids = ids, logits = student:logits(ids, {solver = "euler", steps = options.steps}),
})
print(options.out)
