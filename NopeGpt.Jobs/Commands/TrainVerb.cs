using System.CommandLine;
using NopeGpt.Jobs.Training;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt train RUN_FOLDER`: the trainer process.</summary>
internal sealed class TrainVerb() : Verb("train", "Runs or continues what a run's run.json says, until it is done or asked to stop (Ctrl+C saves and ends with exit code 3).")
{
    private readonly Argument<string?> folder = new("RUN_FOLDER") { Description = "The run's folder, or its id in the store.", Arity = ArgumentArity.ExactlyOne };
    private readonly Option<string?> root = CommonOptions.Root();
    private readonly Option<bool> detached = CommonOptions.Flag("--detached", "Work in a session of its own and append everything printed to the run's trainer.log.");

    private readonly Option<string?> device = CommonOptions.Text("--device", "DEVICE", "Work on this instead of the run's own device: the same forms. run.json stays as it is.");
    private readonly Option<string?> threads = CommonOptions.Text("--threads", "N", "CPU threads, instead of the run's own number; 0 takes all cores.");

    public override IReadOnlyList<Argument<string?>> Positions => [folder];

    public override IReadOnlyList<Option> Options => [root, detached, device, threads];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        string named = arguments.Text(folder) ?? "";
        // A run's folder lies in its store: the data sets that it names are beside it.
        Store store = arguments.Store(root, arguments.Text(root) is null ? OwnStore(named) : null);
        string path = RunFolder.TryOpen(store, named, out RunFolder? known) ? known.Path : named;
        bool apart = arguments.Flag(detached);
        string? on = arguments.Text(device);
        if (on is not null && DeviceRequest.Parse(on) is null) arguments.Add("--device", on, DeviceRequest.Fault(on));
        RunPlace place = new(on, arguments.Whole(threads, 0, 1024));
        if (named.Length == 0) arguments.Add("RUN_FOLDER", "", "name a run's folder, or its id in the store");
        TerminalProgress? terminal = apart ? null : new(Console.Error);
        return cancel => TrainerProcessMain.RunAsync(path, store, apart, arguments.TorchLibrary, cancel, terminal is null ? null : terminal.Show, terminal is null ? null : terminal.Log, place);
    }

    private static string? OwnStore(string named)
    {
        if (!File.Exists(Path.Combine(named, "run.json"))) return null;
        DirectoryInfo? runs = new DirectoryInfo(named).Parent;
        return runs?.Name == "runs" ? runs.Parent?.FullName : null;
    }
}
