using System.Runtime.InteropServices;
using TorchSharp;

namespace NopeGpt.Model.Native;

/// <summary>Finds, fits and loads libtorch. Call <see cref="Load"/> before the first use of TorchSharp in a process: on machines with an
/// older C++ runtime TorchSharp cannot load its native half by itself (see <see cref="LibraryFit"/>).</summary>
public static partial class TorchRuntime
{
    private const string Binding = "libLibTorchSharp.so";
    private static readonly Lock Gate = new();
    private static volatile Loaded? loaded;

    private sealed record Loaded(string Folder, string BindingPath, bool Fitted, nint BindingHandle);

    public static bool IsLoaded => loaded is not null;

    /// <summary>Loads libtorch and TorchSharp's native half. Does nothing when they are loaded. Safe from several threads.</summary>
    /// <param name="libraryPath">A libtorch folder (its `lib`) to use in place of the one beside the application, or null.</param>
    /// <exception cref="TorchUnavailableException">Something is missing, or libtorch is loaded from another folder already.</exception>
    public static void Load(string? libraryPath = null)
    {
        lock (Gate)
        {
            string? asked = string.IsNullOrWhiteSpace(libraryPath) ? null : LibraryFolders.Named(libraryPath);
            if (loaded is { } now)
            {
                if (asked is not null && asked != now.Folder)
                    throw new TorchUnavailableException($"libtorch is loaded from {now.Folder} already, so {asked} cannot be used in the same process.");
                return;
            }
            CheckPlatform();
            // libtorch's threads wait for each other at the end of every operator. Waiting busily, as libgomp does by itself, costs most of
            // the speed as soon as another program wants a core; sleeping costs little where the cores are free (docs/experiments.md).
            _ = SetEnvironment("OMP_WAIT_POLICY", "passive", overwrite: 0);
            // GPUs have the numbers of nvidia-smi; the driver by itself numbers the fastest first.
            _ = SetEnvironment("CUDA_DEVICE_ORDER", "PCI_BUS_ID", overwrite: 0);
            IReadOnlyList<string> application = LibraryFolders.Application();
            string folder = asked ?? LibraryFolders.WithTorch(application);
            if (asked is not null) LibraryFolders.CheckNotMixed(asked, application);
            string binding = LibraryFolders.File(application, Binding)
                ?? throw new TorchUnavailableException($"{Binding} is missing in {application[0]}: build or publish the application again.");
            foreach (string library in LibraryFolders.InLoadOrder(folder)) Open(library);
            loaded = OpenBinding(folder, binding);
            Bind(loaded.BindingHandle);
        }
    }

    /// <summary>One line for logs: version, folder, fitted or not, threads, CUDA.</summary>
    public static string Describe()
    {
        if (loaded is not { } now) return "libtorch is not loaded";
        string cuda = torch.cuda.is_available() ? $"CUDA with {torch.cuda.device_count()} device(s)" : "no CUDA";
        string binding = now.Fitted ? $"binding fitted to this machine's C++ runtime at {now.BindingPath}" : $"binding {now.BindingPath}";
        return $"libtorch {LibTorchVersion()} from {now.Folder}, {binding}, {torch.get_num_threads()} thread(s), {cuda}";
    }

    /// <summary>Threads within one operator on the CPU, for the whole process.</summary>
    public static void SetThreads(int threads)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(threads, 1);
        Load();
        torch.set_num_threads(threads);
    }

    /// <summary>The version of the libtorch that is loaded, which may be another one than TorchSharp was built for.</summary>
    internal static Version LibTorchVersion()
    {
        // One byte each from the top: major, minor, patch.
        ulong version = aoti_torch_abi_version();
        return new Version((int)(version >> 56), (int)(version >> 48 & 0xff), (int)(version >> 40 & 0xff));
    }

    /// <summary>A handle for <see cref="NativeLibrary.TryGetExport"/> on libtorch_cpu.</summary>
    internal static nint TorchCpu()
    {
        Load();
        return NativeLibrary.Load(Path.Combine(loaded!.Folder, LibraryFolders.TorchCpu));
    }

    private static void CheckPlatform()
    {
        if (!OperatingSystem.IsLinux() || RuntimeInformation.ProcessArchitecture != Architecture.X64)
            throw new TorchUnavailableException(
                $"libtorch is bundled for Linux on x64 and this process runs on {RuntimeInformation.RuntimeIdentifier}: use a Linux x64 machine or container.");
    }

    private static nint Open(string path)
    {
        try
        {
            return NativeLibrary.Load(path);
        }
        catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
        {
            // The loader's own words are in the last line.
            string reason = e.Message.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).LastOrDefault() ?? "unknown reason";
            throw new TorchUnavailableException($"{path} cannot be loaded ({reason}): install what it names, or set Torch:LibraryPath to a libtorch 2.10 for this machine.", e);
        }
    }

    private static Loaded OpenBinding(string folder, string binding)
    {
        if (!NativeLibrary.TryLoad(LibraryFit.CppRuntime, out _))
            throw new TorchUnavailableException($"The C++ runtime ({LibraryFit.CppRuntime}) is not installed: install it (Debian and Ubuntu: apt-get install libstdc++6).");
        byte[]? fitted = Fit(binding);
        return fitted is null ? new Loaded(folder, binding, false, Open(binding)) : OpenFitted(folder, fitted);
    }

    private static byte[]? Fit(string binding)
    {
        try
        {
            byte[] library = File.ReadAllBytes(binding);
            // Where the runtime's file is gone (an upgrade), what it defines is unknown; the copy works with an older and a newer one.
            IReadOnlyCollection<string> versions = LibraryFit.CppVersions(File.ReadLines("/proc/self/maps"))
                ?? [.. ElfVersions.Needed(library).Select(n => n.Version).Where(v => v != LibraryFit.Unused)];
            return LibraryFit.Fit(library, versions);
        }
        catch (BadImageFormatException e)
        {
            throw new TorchUnavailableException($"{binding} or the machine's {LibraryFit.CppRuntime} is damaged ({e.Message}): build or publish the application again.", e);
        }
        catch (UnauthorizedAccessException e)
        {
            throw new TorchUnavailableException($"{binding} cannot be read by this user: give it read access.", e);
        }
    }

    private static Loaded OpenFitted(string folder, byte[] fitted)
    {
        string data = Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify);
        if (data.Length > 0)
        {
            try
            {
                string path = LibraryFit.Store(fitted, Binding, Path.Combine(data, "nopegpt", "native"));
                return new Loaded(folder, path, true, Open(path));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or TorchUnavailableException)
            {
                // A home that cannot be written to, or one mounted noexec: the temporary folder is next.
            }
        }
        return OpenFromTemporary(folder, fitted);
    }

    private static Loaded OpenFromTemporary(string folder, byte[] fitted)
    {
        string? own = null;
        try
        {
            // A folder of this process's own: others can write beside it, and a library found there under a known name could be theirs.
            own = Directory.CreateTempSubdirectory("nopegpt-native-").FullName;
            string path = LibraryFit.Store(fitted, Binding, own);
            return new Loaded(folder, path, true, Open(path));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new TorchUnavailableException(
                $"A copy of {Binding} must be written, and neither the local application data folder nor {Path.GetTempPath()} can be written to: set XDG_DATA_HOME or TMPDIR to a folder that can.", e);
        }
        finally
        {
            // The mapping outlives the file.
            if (own is not null) Directory.Delete(own, recursive: true);
        }
    }

    private static void Bind(nint binding)
    {
        // TorchSharp's own start-up loads both libraries by name too, and where that fails, copies a whole libtorch into the application's
        // folder. It does not ask this resolver, but finds what is loaded by the name that each library carries (its SONAME).
        NativeLibrary.SetDllImportResolver(typeof(torch).Assembly, (name, _, _) => name == "LibTorchSharp" ? binding : 0);
        NativeLibrary.SetDllImportResolver(typeof(TorchRuntime).Assembly, (name, _, _) => name == "torch_cpu" ? TorchCpu() : name == "LibTorchSharp" ? binding : 0);
    }

    [DllImport("torch_cpu")]
    private static extern ulong aoti_torch_abi_version();

    // .NET's own call changes only its copy of the environment, and libgomp reads the process's when it is loaded.
    [LibraryImport("libc", EntryPoint = "setenv", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetEnvironment(string name, string value, int overwrite);
}
