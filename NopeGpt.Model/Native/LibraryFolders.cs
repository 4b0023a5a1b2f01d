namespace NopeGpt.Model.Native;

/// <summary>Where libtorch lies, for each way in which the application can be started.</summary>
internal static class LibraryFolders
{
    public const string TorchCpu = "libtorch_cpu.so";
    private const string TorchCuda = "libtorch_cuda.so";

    /// <summary>The application's folder, its runtimes/linux-x64/native, and the folders that the host names (the package cache, when a
    /// build's output does not hold the native files).</summary>
    public static IReadOnlyList<string> Application()
    {
        string named = AppContext.GetData("NATIVE_DLL_SEARCH_DIRECTORIES") as string ?? "";
        string[] all = [AppContext.BaseDirectory, Path.Combine(AppContext.BaseDirectory, "runtimes", "linux-x64", "native"), .. named.Split(':', StringSplitOptions.RemoveEmptyEntries)];
        return [.. all.Select(Path.TrimEndingDirectorySeparator).Distinct()];
    }

    /// <summary>A folder that the user named, or its `lib`.</summary>
    /// <exception cref="TorchUnavailableException">It does not exist, or libtorch for this processor is not in it.</exception>
    public static string Named(string path)
    {
        string folder = Path.TrimEndingDirectorySeparator(Path.GetFullPath(path));
        if (!Directory.Exists(folder)) throw new TorchUnavailableException($"Torch:LibraryPath names {folder}, which does not exist: name the lib folder of a libtorch 2.10.");
        string lib = Path.Combine(folder, "lib");
        if (!System.IO.File.Exists(Path.Combine(folder, TorchCpu)) && System.IO.File.Exists(Path.Combine(lib, TorchCpu))) folder = lib;
        Check(folder, "Torch:LibraryPath must name the lib folder of a libtorch 2.10");
        return folder;
    }

    /// <summary>The first of the application's folders with libtorch.</summary>
    public static string WithTorch(IReadOnlyList<string> folders)
    {
        string folder = folders.FirstOrDefault(f => System.IO.File.Exists(Path.Combine(f, TorchCpu)))
            ?? throw new TorchUnavailableException($"{TorchCpu} is missing in {folders[0]}: build with TorchBackend=cpu or cuda, or set Torch:LibraryPath to the lib folder of a libtorch 2.10.");
        Check(folder, "build or publish the application again, or set Torch:LibraryPath");
        return folder;
    }

    public static string? File(IEnumerable<string> folders, string name) =>
        folders.Select(f => Path.Combine(f, name)).FirstOrDefault(System.IO.File.Exists);

    /// <summary>TorchSharp's start-up looks for libtorch in the application's folders first and would load it beside the named one; both
    /// register the same operators, which ends the process.</summary>
    public static void CheckNotMixed(string asked, IReadOnlyList<string> application)
    {
        foreach (string name in (string[])[TorchCpu, TorchCuda])
        {
            string? own = File(application, name);
            if (own is not null && own != Path.Combine(asked, name))
                throw new TorchUnavailableException($"Torch:LibraryPath names {asked} and the application has its own {own}, and the two cannot be in one process: build with TorchBackend=none, or remove the setting.");
        }
    }

    /// <summary>The files to load, in an order in which each finds what it needs loaded or beside it.</summary>
    public static IEnumerable<string> InLoadOrder(string folder)
    {
        string[] optional = ["libc10_cuda.so", TorchCuda];
        return ((string[])["libc10.so", TorchCpu, .. optional, "libtorch.so"]).Select(n => Path.Combine(folder, n)).Where(System.IO.File.Exists);
    }

    private static void Check(string folder, string cure)
    {
        foreach (string name in (string[])[TorchCpu, "libc10.so", "libtorch.so"])
        {
            string path = Path.Combine(folder, name);
            if (!System.IO.File.Exists(path)) throw new TorchUnavailableException($"{name} is missing in {folder}: {cure}.");
            ushort machine = Machine(path, cure);
            if (machine != ElfVersions.X64) throw new TorchUnavailableException($"{path} is for another processor (ELF machine {machine}, x64 is {ElfVersions.X64}): {cure} for Linux x64.");
        }
    }

    private static ushort Machine(string path, string cure)
    {
        try
        {
            byte[] header = new byte[64];
            using FileStream stream = System.IO.File.OpenRead(path);
            return ElfVersions.Machine(header.AsSpan(0, stream.ReadAtLeast(header, header.Length, throwOnEndOfStream: false)));
        }
        catch (BadImageFormatException e)
        {
            throw new TorchUnavailableException($"{path} is not a Linux library ({e.Message}): {cure}.", e);
        }
        catch (UnauthorizedAccessException e)
        {
            throw new TorchUnavailableException($"{path} cannot be read by this user: give it read access, or {cure}.", e);
        }
    }
}
