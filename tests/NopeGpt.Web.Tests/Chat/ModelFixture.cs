using System.Diagnostics;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging.Abstractions;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;
using NopeGpt.Web.Chat;

namespace NopeGpt.Web.Tests.Chat;

/// <summary>A storage root of its own, and clients whose model process is the stub.</summary>
internal sealed class ModelFixture : IAsyncDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly List<ModelProcess> _processes = [];

    public ModelFixture(string root = "root") => Store = new Store(_folder[root]);

    public Store Store { get; }

    /// <summary>This test assembly run as a program.</summary>
    public static TrainerProgram Stub { get; } = new(
        Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "../../../dotnet")), [typeof(ModelStub).Assembly.Location]);

    /// <summary>The stubs that were started, oldest first.</summary>
    public int[] Started => File.Exists(Path.Combine(Store.Root, "starts.txt")) ? [.. File.ReadAllLines(Path.Combine(Store.Root, "starts.txt")).Select(int.Parse)] : [];

    public ModelProcess Process()
    {
        ModelProcess process = new(Store, Stub, new ModelProcessOptions(), NullLogger<ModelProcess>.Instance);
        _processes.Add(process);
        return process;
    }

    public InferenceClient Client() => new(Process());

    public static ChatRequest Ask(string text, string model = "stub", ulong? seed = null) => new(model, [new ChatMessage("user", text)], 0.7, 50, 0.95, seed, 100);

    public static bool IsAlive(int processId)
    {
        try
        {
            using Process process = System.Diagnostics.Process.GetProcessById(processId);
            return !process.HasExited;
        }
        catch (ArgumentException) { return false; }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (ModelProcess process in _processes) await process.DisposeAsync();
        foreach (int left in Started.Where(IsAlive))
        {
            using Process process = System.Diagnostics.Process.GetProcessById(left);
            process.Kill();
        }
        _folder.Dispose();
    }
}
