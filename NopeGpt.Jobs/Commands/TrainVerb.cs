using System.CommandLine;
using NopeGpt.Jobs.Training;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt train RUN_FOLDER`: the trainer process.</summary>
internal sealed class TrainVerb() : Verb("train", "Runs or continues what a run's run.json says, until it is done or asked to stop (Ctrl+C saves and ends with exit code 3).")
{
    private readonly Argument<string?> folder = new("RUN_FOLDER") { Description = "The run's folder, or its id in the store.", Arity = ArgumentArity.ExactlyOne };
    private readonly Option<string?> root = CommonOptions.Root();
    private readonly Option<bool> detached = CommonOptions.Flag("--detached", "Work in a session of its own and append everything printed to the run's trainer.log.");

    public override IReadOnlyList<Argument<string?>> Positions => [folder];

    public override IReadOnlyList<Option> Options => [root, detached];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        Store store = arguments.Store(root);
        string named = arguments.Text(folder) ?? "";
        string path = RunFolder.TryOpen(store, named, out RunFolder? known) ? known.Path : named;
        bool apart = arguments.Flag(detached);
        return cancel => TrainerProcessMain.RunAsync(path, store, apart, arguments.TorchLibrary, cancel, apart ? null : new TerminalProgress(Console.Error).Show);
    }
}
