using System.CommandLine;
using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Training;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt quickstart`: the three runs of the dashboard's button, one after the other in this process.</summary>
internal sealed class QuickstartVerb() : Verb("quickstart", "Makes a story corpus and a tokenizer, trains a small model on it and lets it write: about five minutes on two CPU cores.")
{
    private readonly Option<string?> size = CommonOptions.Text("--size", "SIZE", "tiny (a few seconds, to see that everything works) or default.", "default");
    private readonly Option<string?> root = CommonOptions.Root();
    private readonly Option<string?> device = CommonOptions.Device();
    private readonly Option<string?> threads = CommonOptions.Threads();
    private readonly Option<string?> seed = CommonOptions.Text("--seed", "N", "The same seed gives the same corpus and model.", "1337");
    private readonly Option<bool> json = CommonOptions.Json();

    public override IReadOnlyList<Option> Options => [size, root, device, threads, seed, json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        string wanted = arguments.Text(size) ?? "default";
        if (!Quickstart.Sizes.Contains(wanted)) arguments.Add("--size", wanted, $"choose {string.Join(" or ", Quickstart.Sizes)}");
        string on = arguments.Device(device);
        int? cores = arguments.Whole(threads, 0, 1024);
        ulong? start = arguments.Seed(seed);
        bool document = arguments.Flag(json);
        if (arguments.Problems.Count > 0) return _ => Task.FromResult(ExitCode.BadConfiguration);
        Store store = arguments.Store(root);
        return cancel => RunAsync(store, [.. Quickstart.Runs(wanted).Select(c => c with { Device = on, Threads = cores ?? 0, Seed = start ?? c.Seed })], arguments.TorchLibrary, document, cancel);
    }

    private static async Task<int> RunAsync(Store store, IReadOnlyList<RunConfig> configs, string? torchLibrary, bool document, CancellationToken cancel)
    {
        List<RunFolder> folders = [];
        List<int> codes = [];
        foreach (RunConfig config in configs)
        {
            IReadOnlyList<string> after = folders.Count > 0 ? [folders[^1].Id] : [];
            RunFolder folder = RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(TimeProvider.System.GetUtcNow()), TimeProvider.System.GetUtcNow(), after, config));
            folders.Add(folder);
            await Console.Error.WriteLineAsync($"{folders.Count} of {configs.Count}: {config.Name} ({folder.Path})");
            TerminalProgress terminal = new(Console.Error);
            codes.Add(await TrainerProcessMain.RunAsync(folder.Path, store, detached: false, torchLibrary, cancel, terminal.Show, terminal.Log));
            if (codes[^1] != ExitCode.Done) break;
        }
        if (document) Console.WriteLine(JsonSerializer.Serialize(new { runs = folders.Zip(codes, (folder, code) => RunDocument.Of(folder, RunState.Interrupted, code)) }, Settings.Json));
        else if (codes[^1] == ExitCode.Done) PrintStories(folders, store);
        return codes[^1];
    }

    private static void PrintStories(IReadOnlyList<RunFolder> folders, Store store)
    {
        foreach (SampleEvent sample in folders[^1].Events().OfType<SampleEvent>()) Console.WriteLine($"{sample.Prompt}{sample.Text}\n");
        Console.WriteLine($"Go on with: nopegpt generate --root {store.Root} --checkpoint {folders[^2].Id} --prompt \"Once upon a time\"");
    }
}
