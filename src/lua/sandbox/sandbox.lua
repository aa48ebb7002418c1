-- Takes out of the standard library what reaches beyond the script's folders.
-- `permitted` gives the path of a file inside them, or nil and why not; `temporary` makes a new file there.
local permitted, temporary = ...

local error, ipairs, rawget, type = error, ipairs, rawget, type
local gmatch, gsub, concat = string.gmatch, string.gsub, table.concat
local package = package

-- Nothing is left of these: other programs, the environment, the locale that numbers are read by, code that no
-- compiler has checked, and modules in C.
for library, names in pairs{
  os = {"execute", "getenv", "setlocale"}, io = {"popen"}, string = {"dump"}, package = {"loadlib"},
} do
  for _, name in ipairs(names) do
    _G[library][name] = function()
      error(("%s.%s is not available in the sandbox"):format(library, name), 2)
    end
  end
end
package.cpath = ""

-- Chunks are text. An environment is handed on only where one was given, as nil is one, too.
local load_ = load

function load(chunk, name, _, ...)
  return load_(chunk, name, "t", ...)
end

-- A finalizer runs where no limit reaches it.
local setmetatable_ = setmetatable

function setmetatable(object, meta)
  if type(meta) == "table" and rawget(meta, "__gc") ~= nil then
    error("finalizers (__gc) are not available in the sandbox; use __close", 2)
  end
  return setmetatable_(object, meta)
end

-- Files: the system opens the path that was found to lie inside, without links.
local open_, lines_, input_, output_ = io.open, io.lines, io.input, io.output
local remove_, rename_, searchpath_ = os.remove, os.rename, package.searchpath
local denied = 13 -- EACCES

function io.open(path, ...)
  local found, message = permitted(path)
  if not found then return nil, message, denied end
  return open_(found, ...)
end

local function inside(path, level)
  local found, message = permitted(path)
  if not found then error(message, level + 1) end
  return found
end

function io.lines(path, ...)
  if path == nil then return lines_(nil, ...) end
  return lines_(inside(path, 2), ...)
end

function io.input(file)
  if file == nil or type(file) == "userdata" then return input_(file) end
  return input_(inside(file, 2))
end

function io.output(file)
  if file == nil or type(file) == "userdata" then return output_(file) end
  return output_(inside(file, 2))
end

function os.remove(path)
  local found, message = permitted(path)
  if not found then return nil, message, denied end
  return remove_(found)
end

function os.rename(from, to)
  local old, message = permitted(from)
  if not old then return nil, message, denied end
  local new, reason = permitted(to)
  if not new then return nil, reason, denied end
  return rename_(old, new)
end

function os.tmpname()
  return temporary()
end

function io.tmpfile()
  local path = temporary()
  local file = open_(path, "w+b")
  remove_(path)
  return file
end

-- Modules and other chunks in files.
local function chunk(path, ...)
  local file, message = io.open(path, "rb")
  if not file then return nil, message end
  local text, failure = file:read("a")
  file:close()
  if not text then return nil, failure end
  return load_(gsub(gsub(text, "^\u{feff}", ""), "^#", "--#"), "@" .. path, "t", ...)
end

function loadfile(path, _, ...)
  if path == nil then error("loadfile needs the name of a file in the sandbox", 2) end
  return chunk(path, ...)
end

function dofile(path)
  if path == nil then error("dofile needs the name of a file in the sandbox", 2) end
  local main, message = chunk(path)
  if not main then error(message, 0) end
  return main()
end

function package.searchpath(name, path, ...)
  local tried = {}
  for template in gmatch(path, "[^;]+") do
    local found, missing = searchpath_(name, template, ...)
    if found and permitted(found) then return found end
    tried[#tried + 1] = missing or ("no file '%s' inside the sandbox"):format(found)
  end
  return nil, concat(tried, "\n\t")
end

local function search(name)
  local path, missing = package.searchpath(name, package.path)
  if not path then return missing end
  local main, message = chunk(path)
  if not main then
    error(("error loading module '%s' from file '%s':\n\t%s"):format(name, path, message), 0)
  end
  return main, path
end

for i = #package.searchers, 2, -1 do package.searchers[i] = nil end
package.searchers[2] = search
