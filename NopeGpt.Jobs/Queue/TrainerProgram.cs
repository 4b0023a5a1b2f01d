using System.Diagnostics;
using System.Runtime.InteropServices;

namespace NopeGpt.Jobs.Queue;

/// <summary>The program that is started for a run, with `train RUN_FOLDER --root DIR --detached` after its own arguments.</summary>
/// <param name="FileName">A path, or a name that PATH knows.</param>
public sealed record TrainerProgram(string FileName, IReadOnlyList<string> Arguments)
{
    /// <summary>The command line program `nopegpt` beside the running program; through `dotnet` where it has no executable of its own.</summary>
    public static TrainerProgram Beside()
    {
        string program = Path.Combine(AppContext.BaseDirectory, "nopegpt");
        if (File.Exists(program)) return new TrainerProgram(program, []);
        string dotnet = DotnetRoot is { } root ? Path.Combine(root, "dotnet") : "dotnet";
        return new TrainerProgram(dotnet, [program + ".dll"]);
    }

    /// <summary>The environment of a child: told of an unusual place of the runtime, and without the dashboard's addresses, which are not for it.</summary>
    public static void Prepare(ProcessStartInfo child)
    {
        if (DotnetRoot is { } root) child.Environment.TryAdd("DOTNET_ROOT", root);
        foreach (string name in child.Environment.Keys.Where(k => k.StartsWith("ASPNETCORE_", StringComparison.OrdinalIgnoreCase)).ToList()) child.Environment.Remove(name);
    }

    /// <summary>The folder of the runtime that runs this program. A program of its own finds an unusual one only when it is told.</summary>
    private static string? DotnetRoot { get; } =
        Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "../../..")) is var root && File.Exists(Path.Combine(root, "dotnet")) ? root : null;
}
