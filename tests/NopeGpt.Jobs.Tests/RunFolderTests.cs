using System.Text.Json.Nodes;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;

namespace NopeGpt.Tests;

public sealed class RunFolderTests : IDisposable
{
    private readonly TemporaryFolder temporary = new();
    private readonly Store store;
    private readonly RunFolder folder;

    public RunFolderTests()
    {
        store = new Store(temporary["root"]);
        folder = RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, "20260101-000000-abcd", DateTimeOffset.UnixEpoch, ["x"], Presets.Find("stories").Config));
    }

    public void Dispose() => temporary.Dispose();

    [Fact]
    public void A_record_is_read_as_it_was_written()
    {
        RunRecord read = RunFolder.Open(folder.Path).Read();
        Assert.Equal(folder.Read().Config.Training.MaxSteps, read.Config.Training.MaxSteps);
        Assert.Equal(["x"], read.After);
        Assert.Equal("20260101-000000-abcd", folder.Id);
    }

    [Fact]
    public void The_architecture_is_read_as_it_was_written()
    {
        RunConfig config = folder.Read().Config with { Model = ModelPresets.Find("gpt2-padded").Config with { ResidualDropout = 0.1, Initialization = Initialization.Gpt2 } };
        folder.Write(folder.Read() with { Config = config });
        Assert.Equal(config.Model, folder.Read().Config.Model);
    }

    [Fact]
    public void A_record_from_before_the_architectures_options_has_their_defaults()
    {
        JsonObject json = JsonNode.Parse(File.ReadAllText(folder.RecordPath))!.AsObject();
        string[] first = ["vocabulary_size", "embedding_dimensions", "num_q_heads", "num_kv_heads", "num_decoder_layers", "hidden_ratio", "dropout"];
        JsonObject model = json["config"]!["model"]!.AsObject();
        foreach (string added in model.Select(p => p.Key).Except(first).ToArray()) model.Remove(added);
        Assert.Equal(first, model.Select(p => p.Key));
        ModelConfig before = folder.Read().Config.Model;
        File.WriteAllText(folder.RecordPath, json.ToJsonString());
        Assert.Equal(before, folder.Read().Config.Model);
    }

    [Fact]
    public async Task Events_are_numbered_without_gaps_over_several_writers()
    {
        await using (EventWriter first = new(folder, store))
        {
            first.Write(new StartedEvent(1, 0, 1, "cpu"));
            first.Write(new MetricsEvent(1, 2, 3, null, new Dictionary<string, double> { ["train/loss"] = double.NaN }));
        }
        await using (EventWriter second = new(folder, store))
        {
            Assert.Equal(1, second.Attempts);
            second.Write(new EndedEvent(RunState.Completed, null));
        }
        TrainingEvent[] events = [.. folder.Events()];
        Assert.Equal([1, 2, 3], events.Select(e => e.Sequence));
        Assert.True(double.IsNaN(((MetricsEvent)events[1]).Values["train/loss"]));
        Assert.Equal([3], folder.Events(after: 2).Select(e => e.Sequence));
    }

    [Fact]
    public async Task A_torn_last_line_and_garbage_lose_those_lines_only()
    {
        await using (EventWriter first = new(folder, store)) first.Write(new WarningEvent("one"));
        await File.AppendAllTextAsync(folder.EventsPath, "garbage\n{\"type\":\"warning\",\"sequence\":2,\"mess");
        await using (EventWriter second = new(folder, store)) second.Write(new WarningEvent("two"));
        List<string> warnings = [];
        string[] told = [.. folder.Events(warn: warnings.Add).OfType<WarningEvent>().Select(e => e.Message)];
        Assert.Equal(["one", "two"], [told[0], told[^1]]);
        Assert.Contains("line 2", Assert.Single(warnings), StringComparison.Ordinal);
        // The next attempt tells of it among the events, once.
        Assert.Equal(warnings[0], told[1]);
        Assert.Equal(3, told.Length);
        await using (EventWriter third = new(folder, store)) third.Write(new WarningEvent("three"));
        Assert.Equal([.. told, "three"], folder.Events().OfType<WarningEvent>().Select(e => e.Message));
    }

    [Fact]
    public async Task The_lock_is_held_by_one()
    {
        await using FileStream? held = folder.TryLock();
        Assert.NotNull(held);
        Assert.Null(folder.TryLock());
        await held.DisposeAsync();
        await using FileStream? again = folder.TryLock();
        Assert.NotNull(again);
    }

    [Fact]
    public void A_stop_request_is_read_until_it_is_taken_back()
    {
        Assert.Equal(StopRequest.None, folder.ReadStop());
        folder.RequestStop(StopRequest.Save);
        Assert.Equal(StopRequest.Save, folder.ReadStop());
        folder.RequestStop(StopRequest.Kill);
        Assert.Equal(StopRequest.Kill, folder.ReadStop());
        folder.RequestStop(StopRequest.None);
        Assert.Equal(StopRequest.None, folder.ReadStop());
    }

    [Fact]
    public void A_damaged_record_is_one_sentence_with_the_file()
    {
        File.WriteAllText(folder.RecordPath, "{\"id\": ");
        UserException e = Assert.Throws<UserException>(() => folder.Read());
        Assert.Contains(folder.RecordPath, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_record_of_a_newer_version_is_refused()
    {
        File.WriteAllText(folder.RecordPath, File.ReadAllText(folder.RecordPath).Replace("\"format_version\": 1", "\"format_version\": 99", StringComparison.Ordinal));
        Assert.Contains("99", Assert.Throws<UserException>(() => folder.Read()).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("../runs/20260101-000000-abcd")]
    [InlineData("%2e%2e")]
    [InlineData("a\0")]
    [InlineData("")]
    [InlineData("..")]
    public void An_id_from_outside_never_becomes_another_path(string id) => Assert.False(RunFolder.TryOpen(store, id, out _));

    [Theory]
    [InlineData("{}")]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("{\"format_version\": 1, \"id\": \"x\", \"created\": \"2026-01-01T00:00:00Z\", \"after\": [], \"config\": {\"kind\": 7}}")]
    [InlineData("{\"format_version\": 1, \"id\": \"x\", \"created\": \"2026-01-01T00:00:00Z\", \"after\": [], \"config\": {\"prepare\": {\"datasett\": \"x\"}}}")]
    public void A_record_that_says_too_little_or_something_unknown_is_refused_in_a_sentence(string json)
    {
        File.WriteAllText(folder.RecordPath, json);
        Assert.Contains(folder.RecordPath, Assert.Throws<UserException>(() => folder.Read()).Message, StringComparison.Ordinal);
    }
}
