using System.Buffers.Binary;
using System.Text;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;

namespace NopeGpt.Tests.Training;

/// <summary>The files for TensorBoard, read by a reader that shares nothing with the writer.</summary>
public sealed class TensorBoardTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    [Fact]
    public async Task A_run_writes_every_step_and_evaluation_under_the_references_names()
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(30));
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(run.Path, prepared.Store, false, null, default));
        string file = Assert.Single(Directory.GetFiles(Path.Combine(run.Path, "tensorboard")));
        Assert.Matches(@"\Aevents\.out\.tfevents\.\d{10}\.", Path.GetFileName(file));
        List<BoardEvent> events = BoardEvent.Read(file);
        Assert.Equal("brain.Event:2", events[0].FileVersion);
        Assert.DoesNotContain(events, e => e.Purges);
        Assert.Equal(Values(run, "train/loss"), Shown([file], "Cross Entropy"));
        Assert.Equal(Values(run, "train/gradient_norm"), Shown([file], "Gradient Norm"));
        Assert.Equal(Values(run, "eval/perplexity"), Shown([file], "Perplexity"));
        Assert.Equal(Values(run, "time/backward_ms"), Shown([file], "time/backward_ms"));
        Assert.Equal(30, Shown([file], "Cross Entropy").Count);
        Assert.Equal([20, 30], Shown([file], "Perplexity").Keys);
        MetricsEvent last = run.Events().OfType<MetricsEvent>().Last();
        Assert.Equal((last.Time - DateTimeOffset.UnixEpoch).TotalSeconds, events[^1].Seconds, 1e-3);
    }

    [Fact]
    public async Task A_run_that_goes_on_doubles_no_step_and_loses_none()
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(40));
        foreach (int end in new[] { 13, 27 })
        {
            using CancellationTokenSource stop = new();
            Assert.Equal(ExitCode.StoppedAndSaved, await TrainerProcessMain.RunAsync(run.Path, prepared.Store, false, null, stop.Token, e =>
            {
                if (e is MetricsEvent m && m.Step == end) stop.Cancel();
            }));
        }
        // As after a kill: two newer checkpoints are gone, and steps up to the 27th are done again.
        foreach (string newer in Directory.GetDirectories(run.CheckpointsPath).Order(StringComparer.Ordinal).Skip(1)) Directory.Delete(newer, recursive: true);
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(run.Path, prepared.Store, false, null, default));

        string[] files = [.. Directory.GetFiles(run.TensorBoardPath).Order(StringComparer.Ordinal)];
        Assert.Equal(3, files.Length);
        List<long> from = [.. run.Events().OfType<StartedEvent>().Select(s => s.FromStep)];
        Assert.Equal([null, from[1] + 1, from[2] + 1], files.Select(f => BoardEvent.Read(f).FirstOrDefault(e => e.Purges)?.Step));
        SortedDictionary<long, float> shown = Shown(files, "Cross Entropy");
        Assert.Equal(Enumerable.Range(1, 40).Select(i => (long)i), shown.Keys);
        Assert.Equal(Values(run, "train/loss"), shown);
        Assert.Equal([20, 40], Shown(files, "Perplexity").Keys);
    }

    [Fact]
    public async Task An_evaluation_that_is_done_again_after_its_samples_were_stopped_stands_once()
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(1));
        TensorBoardWriter first = new(run, _ => Assert.Fail("it can be written"));
        TrainingEvent[] attempt =
        [
            new StartedEvent(1, 0, 1, "cpu") { Sequence = 1 }, Numbers(20, "train/loss", 2) with { Sequence = 2 }, Numbers(20, "eval/perplexity", 7) with { Sequence = 3 },
        ];
        first.Write(attempt);
        first.Dispose();
        await File.WriteAllLinesAsync(run.EventsPath, attempt.Select(e => System.Text.Json.JsonSerializer.Serialize(e, TrainingEvent.Json)));
        using TensorBoardWriter second = new(run, _ => Assert.Fail("it can be written"));
        second.Write([new StartedEvent(2, 20, 1, "cpu") { Sequence = 4 }, Numbers(20, "eval/perplexity", 7) with { Sequence = 5 }, Numbers(21, "train/loss", 3) with { Sequence = 6 }]);
        string[] files = [.. Directory.GetFiles(run.TensorBoardPath).Order(StringComparer.Ordinal)];
        Assert.Equal([20], Shown(files, "Perplexity").Keys);
        Assert.Equal([20, 21], Shown(files, "Cross Entropy").Keys);
    }

    [Fact]
    public async Task Where_it_cannot_be_written_the_run_goes_on_and_says_so_once()
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(12));
        await File.WriteAllTextAsync(Path.Combine(run.Path, "tensorboard"), "in the way");
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(run.Path, prepared.Store, false, null, default));
        Assert.Equal(12, Values(run, "train/loss").Count);
        Assert.Single(await File.ReadAllLinesAsync(run.LogPath), l => l.Contains("TensorBoard", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("", 0xA282EAD8)]
    // CRC-32C of the check string is 0xE3069283 (RFC 3720, B.4, and every table of CRCs).
    [InlineData("123456789", 0xC78AB0E5)]
    public void The_checksum_is_the_masked_crc_32c(string text, uint masked)
    {
        Assert.Equal(masked, EventRecords.MaskedCrc(Encoding.ASCII.GetBytes(text)));
        Assert.Equal(masked, BoardEvent.MaskedCrc(Encoding.ASCII.GetBytes(text)));
    }

    private static MetricsEvent Numbers(long step, string name, double value) => new(step, 100, step, null, new Dictionary<string, double> { [name] = value });

    /// <summary>The last value of each step, as the run's own file has it.</summary>
    private static SortedDictionary<long, float> Values(RunFolder run, string name)
    {
        SortedDictionary<long, float> values = [];
        foreach (MetricsEvent m in run.Events().OfType<MetricsEvent>())
        {
            if (m.Values.TryGetValue(name, out double value)) values[m.Step] = (float)value;
        }
        return values;
    }

    /// <summary>What TensorBoard shows of the files: a restart purges what was there from its step on. No step may stand twice.</summary>
    private static SortedDictionary<long, float> Shown(IEnumerable<string> files, string tag)
    {
        List<(long Step, float Value)> shown = [];
        foreach (BoardEvent one in files.SelectMany(BoardEvent.Read))
        {
            if (one.Purges) shown.RemoveAll(s => s.Step >= one.Step);
            if (one.Scalars.TryGetValue(tag, out float value)) shown.Add((one.Step, value));
        }
        Assert.Equal(shown.Count, shown.Select(s => s.Step).Distinct().Count());
        return new(shown.ToDictionary(s => s.Step, s => s.Value));
    }

    /// <summary>A record of an event file.</summary>
    private sealed record BoardEvent(double Seconds, long Step, string? FileVersion, bool Purges, Dictionary<string, float> Scalars)
    {
        private static readonly uint[] Table = [.. Enumerable.Range(0, 256).Select(i => Enumerable.Range(0, 8).Aggregate((uint)i, (c, _) => (c & 1) == 0 ? c >> 1 : (c >> 1) ^ 0x82F63B78))];

        public static uint MaskedCrc(ReadOnlySpan<byte> bytes)
        {
            uint crc = 0xFFFFFFFF;
            foreach (byte b in bytes) crc = Table[(crc ^ b) & 0xFF] ^ (crc >> 8);
            crc ^= 0xFFFFFFFF;
            return unchecked(((crc >> 15) | (crc << 17)) + 0xA282EAD8);
        }

        public static List<BoardEvent> Read(string path)
        {
            byte[] bytes = File.ReadAllBytes(path);
            List<BoardEvent> events = [];
            for (int at = 0; at < bytes.Length;)
            {
                int length = checked((int)BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(at)));
                Assert.Equal(MaskedCrc(bytes.AsSpan(at, 8)), BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at + 8)));
                Assert.Equal(MaskedCrc(bytes.AsSpan(at + 12, length)), BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at + 12 + length)));
                events.Add(Parse(bytes.AsMemory(at + 12, length)));
                at += 16 + length;
            }
            return events;
        }

        private static BoardEvent Parse(ReadOnlyMemory<byte> message)
        {
            BoardEvent read = new(0, 0, null, false, []);
            foreach ((int field, ulong number, ReadOnlyMemory<byte> bytes) in Fields(message))
            {
                read = field switch
                {
                    1 => read with { Seconds = BitConverter.UInt64BitsToDouble(number) },
                    2 => read with { Step = (long)number },
                    3 => read with { FileVersion = Encoding.UTF8.GetString(bytes.Span) },
                    5 => read with { Scalars = Fields(bytes).Select(v => Value(v.Bytes)).ToDictionary(v => v.Tag, v => v.Value) },
                    7 => read with { Purges = Fields(bytes).Single() is { Field: 1, Number: 1 } },
                    _ => throw new InvalidDataException($"field {field} of an event"),
                };
            }
            return read;
        }

        private static (string Tag, float Value) Value(ReadOnlyMemory<byte> message)
        {
            var fields = Fields(message).ToDictionary(f => f.Field);
            return (Encoding.UTF8.GetString(fields[1].Bytes.Span), BitConverter.UInt32BitsToSingle((uint)fields[2].Number));
        }

        private static List<(int Field, ulong Number, ReadOnlyMemory<byte> Bytes)> Fields(ReadOnlyMemory<byte> message)
        {
            List<(int, ulong, ReadOnlyMemory<byte>)> fields = [];
            int at = 0;
            while (at < message.Length)
            {
                ulong key = Number();
                switch (key & 7)
                {
                    case 0: fields.Add(((int)(key >> 3), Number(), default)); break;
                    case 1: fields.Add(((int)(key >> 3), BinaryPrimitives.ReadUInt64LittleEndian(message.Span[at..]), default)); at += 8; break;
                    case 5: fields.Add(((int)(key >> 3), BinaryPrimitives.ReadUInt32LittleEndian(message.Span[at..]), default)); at += 4; break;
                    default:
                        int length = (int)Number();
                        fields.Add(((int)(key >> 3), 0, message.Slice(at, length)));
                        at += length;
                        break;
                }
            }
            return fields;

            ulong Number()
            {
                ulong value = 0;
                for (int shift = 0; ; shift += 7)
                {
                    byte one = message.Span[at++];
                    value |= (ulong)(one & 0x7F) << shift;
                    if (one < 0x80) return value;
                }
            }
        }
    }
}
