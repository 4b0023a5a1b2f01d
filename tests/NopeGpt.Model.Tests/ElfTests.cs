using System.Buffers.Binary;
using NopeGpt.Model.Native;
using NopeGpt.Tests;

namespace NopeGpt.Model.Tests;

public sealed class ElfTests
{
    private static byte[] Binding() => File.ReadAllBytes(LibraryFolders.File(LibraryFolders.Application(), "libLibTorchSharp.so")!);

    [Fact]
    public void The_binding_needs_the_version_that_older_machines_lack()
    {
        IReadOnlyList<VersionNeed> needed = ElfVersions.Needed(Binding());
        Assert.Contains(needed, n => n is { Library: LibraryFit.CppRuntime, Version: LibraryFit.Unused, Weak: false });
        Assert.Contains(needed, n => n is { Library: "libc.so.6", Version: "GLIBC_2.34" });
        Assert.Equal(ElfVersions.X64, ElfVersions.Machine(Binding()));
    }

    [Fact]
    public void Nothing_in_the_binding_refers_to_a_symbol_of_the_version_that_is_marked()
    {
        byte[] elf = Binding();
        int index = BinaryPrimitives.ReadUInt16LittleEndian(elf.AsSpan(ElfVersions.Needed(elf).Single(n => n.Version == LibraryFit.Unused).FlagsOffset + 2));
        HashSet<int> symbols = [.. Sections(elf, 0x6fffffff).SelectMany(s => Enumerable.Range(0, s.Size / 2).Where(i => BinaryPrimitives.ReadUInt16LittleEndian(elf.AsSpan(s.Offset + (2 * i))) == index))];
        HashSet<int> related = [.. Sections(elf, 4).SelectMany(s => Enumerable.Range(0, s.Size / 24).Select(i => (int)(BinaryPrimitives.ReadUInt64LittleEndian(elf.AsSpan(s.Offset + (24 * i) + 8)) >> 32)))];
        Assert.NotEmpty(symbols);
        Assert.True(related.Count > 1000);
        Assert.Empty(symbols.Intersect(related));
    }

    [Fact]
    public void The_machines_own_runtime_defines_versions_without_its_file_name()
    {
        System.Runtime.InteropServices.NativeLibrary.Load(LibraryFit.CppRuntime);
        IReadOnlyCollection<string> versions = LibraryFit.CppVersions(File.ReadLines("/proc/self/maps"))!;
        Assert.Contains("GLIBCXX_3.4", versions);
        Assert.Contains("GLIBCXX_3.4.30", versions);
        Assert.Contains("CXXABI_1.3.13", versions);
        Assert.DoesNotContain(LibraryFit.CppRuntime, versions);
    }

    [Fact]
    public void A_file_that_left_the_disk_has_unknown_versions() =>
        Assert.Null(LibraryFit.CppVersions(["7f00-7f01 r-xp 00000000 fe:00 1      /nowhere/libstdc++.so.6.0.30 (deleted)"]));

    [Fact]
    public void Marking_changes_one_bit_of_a_copy()
    {
        byte[] before = Binding();
        byte[] after = ElfVersions.MarkWeak(before, LibraryFit.CppRuntime, LibraryFit.Unused);
        Assert.Equal(before, Binding());
        int changed = Assert.Single(Enumerable.Range(0, before.Length), i => before[i] != after[i]);
        Assert.Equal(2, before[changed] ^ after[changed]);
        Assert.Equal([LibraryFit.Unused], ElfVersions.Needed(after).Where(n => n.Weak).Select(n => n.Version));
    }

    [Fact]
    public void A_version_that_is_not_needed_cannot_be_marked() =>
        Assert.Throws<ArgumentException>(() => ElfVersions.MarkWeak(Binding(), LibraryFit.CppRuntime, "GLIBCXX_9.9"));

    [Fact]
    public void A_new_runtime_gets_no_copy_an_older_one_gets_one_and_an_old_one_a_sentence()
    {
        byte[] binding = Binding();
        string[] all = [.. ElfVersions.Needed(binding).Where(n => n.Library == LibraryFit.CppRuntime).Select(n => n.Version)];
        Assert.Null(LibraryFit.Fit(binding, all));
        byte[] fitted = LibraryFit.Fit(binding, [.. all.Except([LibraryFit.Unused])])!;
        Assert.NotEqual(binding, fitted);
        Assert.Null(LibraryFit.Fit(fitted, [.. all.Except([LibraryFit.Unused])]));
        TorchUnavailableException old = Assert.Throws<TorchUnavailableException>(() => LibraryFit.Fit(binding, [.. all.Except([LibraryFit.Unused, "GLIBCXX_3.4.30"])]));
        Assert.Contains("GLIBCXX_3.4.30", old.Message);
    }

    [Fact]
    public void A_copy_is_stored_once_repaired_when_damaged_and_leaves_nothing_aside()
    {
        using TemporaryFolder folder = new();
        string path = LibraryFit.Store([1, 2, 3], "lib.so", folder.Path);
        DateTime written = File.GetLastWriteTimeUtc(path);
        Assert.Equal(path, LibraryFit.Store([1, 2, 3], "lib.so", folder.Path));
        Assert.Equal(written, File.GetLastWriteTimeUtc(path));
        Assert.NotEqual(path, LibraryFit.Store([1, 2, 4], "lib.so", folder.Path));

        File.WriteAllBytes(path, [1]);
        LibraryFit.Store([1, 2, 3], "lib.so", folder.Path);
        Assert.Equal<byte>([1, 2, 3], File.ReadAllBytes(path));
        Assert.Equal(2, Directory.GetFiles(folder.Path, "*", SearchOption.AllDirectories).Length);
    }

    [Fact]
    public void Many_writers_of_one_copy_all_get_it_whole()
    {
        using TemporaryFolder folder = new();
        byte[] content = new byte[1 << 20];
        new Random(1).NextBytes(content);
        Parallel.For(0, 16, new ParallelOptions { MaxDegreeOfParallelism = 8 }, _ => Assert.Equal(content, File.ReadAllBytes(LibraryFit.Store(content, "lib.so", folder.Path))));
        Assert.Single(Directory.GetFiles(folder.Path, "*", SearchOption.AllDirectories));
    }

    [Fact]
    public void Damaged_files_end_in_BadImageFormat_and_nothing_else()
    {
        byte[] elf = Binding();
        foreach (int length in (int[])[0, 3, 4, 63, 64, 5000]) Assert.Throws<BadImageFormatException>(() => ElfVersions.Needed(elf.AsSpan(0, length)));
        Random random = new(7);
        int table = (int)BinaryPrimitives.ReadUInt64LittleEndian(elf.AsSpan(40));
        for (int i = 0; i < 300; i++)
        {
            byte[] damaged = (byte[])elf.Clone();
            damaged[random.Next(2) == 0 ? random.Next(64) : random.Next(table, elf.Length)] = (byte)random.Next(256);
            try
            {
                ElfVersions.Needed(damaged);
                ElfVersions.Defined(damaged);
            }
            catch (BadImageFormatException)
            {
                // One of the two outcomes that are right.
            }
        }
    }

    private static IEnumerable<(int Offset, int Size)> Sections(byte[] elf, uint type)
    {
        int table = (int)BinaryPrimitives.ReadUInt64LittleEndian(elf.AsSpan(40));
        for (int i = 0; i < BinaryPrimitives.ReadUInt16LittleEndian(elf.AsSpan(60)); i++)
        {
            Memory<byte> header = elf.AsMemory(table + (64 * i), 64);
            if (BinaryPrimitives.ReadUInt32LittleEndian(header.Span[4..]) == type)
                yield return ((int)BinaryPrimitives.ReadUInt64LittleEndian(header.Span[24..]), (int)BinaryPrimitives.ReadUInt64LittleEndian(header.Span[32..]));
        }
    }
}
