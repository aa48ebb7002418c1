-- Settings of luacheck for the scripts and for what the program runs before them.
std = "lua54"
max_line_length = 120

-- These change the standard library, which is what they are for.
for _, file in ipairs{"src/lua/prelude.lua", "src/lua/sandbox/sandbox.lua"} do
  files[file] = {ignore = {"121", "122", "142"}}
end
